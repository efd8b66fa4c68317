"""Prepared pictures: when a prepared set stands in for its files, and when it is left alone."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from gradspike.data.pictures import source as picture_source
from gradspike.errors import UserError
from helpers.data_samples import encoded, pack, pixels, write_class_folders
from helpers.pictures import load_cifar, load_folder, same_pictures


def test_a_repaired_file_makes_another_set(tmp_path: Path) -> None:
    written = write_class_folders(tmp_path / "pets")
    picture = tmp_path / "pets" / "train" / "ant" / "000.png"
    content = picture.read_bytes()
    picture.write_bytes(b"")
    load_cifar(tmp_path, tmp_path / "pets", on_bad_file="skip")
    picture.write_bytes(content)
    assert same_pictures(load_cifar(tmp_path, tmp_path / "pets"), written)


def test_a_prepared_set_is_used_when_its_files_are_gone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    written = write_class_folders(tmp_path / "pets")
    load_folder(tmp_path, tmp_path / "pets")
    shutil.rmtree(tmp_path / "pets")
    with caplog.at_level("INFO"):
        assert same_pictures(load_folder(tmp_path, tmp_path / "pets"), written)
    assert "are missing; using" in caplog.text
    with pytest.raises(UserError, match="does not exist"):
        load_folder(tmp_path, tmp_path / "pets", size=16)


def test_sets_of_changed_files_are_left_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_class_folders(tmp_path / "pets")
    first = load_folder(tmp_path, tmp_path / "pets")
    load_folder(tmp_path, tmp_path / "pets", size=16)
    (tmp_path / "pets" / "train" / "ant" / "new.png").write_bytes(encoded(pixels(99)))
    with caplog.at_level("INFO"):
        assert len(load_folder(tmp_path, tmp_path / "pets").labels) == len(first.labels) + 1
    told = [record.getMessage() for record in caplog.records if "can be deleted" in record.getMessage()]
    assert len(told) == 1, "the set of 16x16 pixels is another option's and stays out of it"
    assert str(Path(first.labels.filename).parent) in told[0]  # type: ignore[attr-defined]
    assert told[0].count("image_folder-split-") == 1, "its split goes with it"


def test_a_set_of_another_version_is_left_alone_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = write_class_folders(tmp_path / "pets")
    old = load_folder(tmp_path, tmp_path / "pets")
    monkeypatch.setattr(picture_source, "VERSION", 99)
    with caplog.at_level("INFO"):
        new = load_folder(tmp_path, tmp_path / "pets")
    assert new.labels.filename != old.labels.filename  # type: ignore[attr-defined]
    assert same_pictures(old, written)
    assert same_pictures(new, written)
    assert "by another version" in caplog.text
    assert str(Path(old.labels.filename).parent) in caplog.text  # type: ignore[attr-defined]


def test_opening_a_set_reads_no_list_of_files(tmp_path: Path) -> None:
    """No file names are read, neither from the archive nor from the data set; a changed archive is still detected."""
    write_class_folders(tmp_path / "files", size=4)
    archive = pack(tmp_path / "files", tmp_path / "a.zip")
    load_folder(tmp_path, archive)
    content = archive.read_bytes()
    stamp = archive.stat()
    archive.write_bytes(b"x" * len(content))  # cannot even be listed
    os.utime(archive, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    with pytest.raises(UserError, match="nor a readable zip"):
        load_folder(tmp_path, archive)
