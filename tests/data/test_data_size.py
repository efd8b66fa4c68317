"""A set of a million files: what listing, reading and splitting take per file, counted and not timed."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gradspike.data.files import files as files_module
from gradspike.data.files import members
from gradspike.data.files.files import Files
from gradspike.data.source import by_label, hold_out, stratified_split
from helpers.counting import memory

COUNT = 500
NAMES = [f"top/train/class_{index % 10}/{index:06d}.png" for index in range(COUNT)]


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same files in a zip file (stored and deflated), a tar file and a compressed one."""
    place = tmp_path_factory.mktemp("archives")
    with zipfile.ZipFile(place / "a.zip", "w") as archive:
        for index, name in enumerate(NAMES):
            archive.writestr(name, name * 9, zipfile.ZIP_DEFLATED if index % 2 else zipfile.ZIP_STORED)
    for ending, mode in ((".tar", "w"), (".tar.gz", "w:gz")):
        with tarfile.open(place / f"a{ending}", mode) as tar:  # type: ignore[call-overload]
            for name in NAMES:
                info = tarfile.TarInfo(name)
                info.size = 9 * len(name)
                tar.addfile(info, io.BytesIO(9 * name.encode()))
    return place


@pytest.mark.parametrize("ending", [".zip", ".tar", ".tar.gz"])
def test_a_listing_keeps_little_of_each_file(archives: Path, tmp_path: Path, ending: str) -> None:
    """The standard library's own directory of an open archive is several times as large."""

    def listed(archive: Path) -> Files:
        files = Files.open(archive)
        files.read(files.entries()[-1])
        return files

    listed(archives / f"a{ending}")  # modules are loaded
    other = Path(shutil.copy(archives / f"a{ending}", tmp_path))
    kept, _ = memory(lambda: listed(other))
    assert kept / COUNT < 420


def test_a_worker_reads_a_zip_without_its_directory(archives: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = Files.open(archives / "a.zip")
    entries = files.entries()

    def refused(*opened: Any) -> zipfile.ZipFile:
        raise AssertionError("the directory was read")

    monkeypatch.setattr(members, "_zip", refused)
    for entry in entries[:20]:
        assert files.read(entry) == 9 * entry.name.encode()


@pytest.mark.parametrize("ending", [".zip", ".tar", ".tar.gz"])
def test_an_archive_is_listed_once_for_its_folders(
    archives: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed: list[str] = []
    for name in ("list_zip", "list_tar"):
        original = getattr(files_module, name)
        monkeypatch.setattr(
            files_module, name, lambda *words, name=name, original=original: (listed.append(name), original(*words))[1]
        )
    files = Files.open(archives / f"a{ending}")
    inner = files.within_single_folder("train")
    assert [f"top/{entry.name}" for entry in inner.entries()] == [entry.name for entry in files.entries()]
    assert len(listed) == 1


class Compared(np.ndarray[Any, Any]):
    """An array that counts its elements that are compared with a value."""

    elements = 0

    def __eq__(self, other: object) -> Any:
        Compared.elements += self.size
        return np.asarray(self) == other


def test_a_split_does_not_look_at_all_samples_for_each_class() -> None:
    labels = np.arange(4000, dtype=np.int64) % 1000
    watched = labels.view(Compared)
    splits = hold_out(watched, np.zeros(4000, dtype=np.uint8), 0.5, seed=1)
    assert (splits == 1).sum() == 2000
    assert np.array_equal(stratified_split(watched, 0.25, 0.25, seed=1), stratified_split(labels, 0.25, 0.25, seed=1))
    assert Compared.elements <= 4 * len(labels)


def test_samples_by_label_keep_their_order() -> None:
    labels = np.array([3, 1, 3, 0, 1, 3], dtype=np.int64)
    samples = np.array([5, 0, 4, 1, 2])
    assert [found.tolist() for found in by_label(labels, samples)] == [[4, 1], [5, 0, 2]]
    assert by_label(labels, samples[:0]) == []


def test_names_of_zip_members_survive_any_reader(tmp_path: Path) -> None:
    """A damaged local header, or a method that is read in another way, goes to zipfile, which says what is wrong."""
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("bz2", b"b" * 1000, zipfile.ZIP_BZIP2)
        archive.writestr("stored", b"s" * 1000)
    files = Files.open(path)
    packed, stored = files.entries()
    assert files.read(packed) == b"b" * 1000
    content = bytearray(path.read_bytes())
    content[stored.offset] ^= 1
    path.write_bytes(content)
    os.utime(path, (1, 1))
    with pytest.raises(ValueError, match="cannot be unpacked"):
        files.read(stored)
