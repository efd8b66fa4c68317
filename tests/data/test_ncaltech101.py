"""N-Caltech101: recordings of various extents, in folders of class names, without an official split."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gradspike.data.events.frames import to_frames
from gradspike.data.options.events import NCaltech101Config
from gradspike.data.sets.ncaltech101 import NCaltech101
from gradspike.data.source import SPLITS, Samples
from gradspike.errors import UserError
from helpers import event_samples as made
from helpers.data_samples import pack

CLASSES = ("BACKGROUND_Google", "Faces_easy", "accordion")


def load(data_dir: Path, source: Path, **options: Any) -> Samples:
    config = NCaltech101Config(source=str(source), **{"classes": 3, "folds": 3, "image_size": 24, **options})
    opened = NCaltech101(config, 4, data_dir)
    opened.prepare_workers = 1
    return opened.load()


def test_frames_labels_and_folds_are_those_of_the_files(tmp_path: Path) -> None:
    written = made.write_ncaltech101(tmp_path / "files")
    samples = load(tmp_path, tmp_path / "files")
    assert samples.class_names == CLASSES
    assert list(samples.names) == sorted(written)
    for index, name in enumerate(samples.names):
        frames = to_frames(written[name], (240, 180), 4, "equal_count", image_size=(24, 24))
        assert (samples.inputs[index] == frames).all()
        _, of_class, file = name.split("/")
        assert samples.class_names[samples.labels[index]] == of_class
        number = int(file.removeprefix("image_").removesuffix(".bin"))
        assert (samples.splits[index] == SPLITS.index("test")) == (number >= 5)  # the last third of 1 to 6
    assert samples.folder is not None
    facts = json.loads((samples.folder / "meta.json").read_text())["facts"]
    assert facts["left_out"] == {"Caltech101_annotations/**/*.bin": len(written)}


def test_tonic_reads_the_same_events(tmp_path: Path) -> None:
    """tonic then moves each recording's events to the corner; here, they stay where they were recorded."""
    from tonic.io import events_struct, read_mnist_file

    written = made.write_ncaltech101(tmp_path / "files", per_class=3)
    for name, events in written.items():
        theirs = read_mnist_file(str(tmp_path / "files" / name), events_struct)
        for field in ("t", "x", "y", "p"):
            assert (theirs[field] == getattr(events, field)).all()


def test_archives_give_the_same_samples(tmp_path: Path) -> None:
    """As downloaded: one archive with the recordings and one with the outlines, in an archive."""
    made.write_ncaltech101(tmp_path / "files", per_class=3)
    (tmp_path / "inner").mkdir()
    for top in ("Caltech101", "Caltech101_annotations"):
        pack(tmp_path / "files" / top, tmp_path / f"inner/{top}.zip", f"{top}/")
    pack(tmp_path / "inner", tmp_path / "N-Caltech101-archive.zip", "N-Caltech101-archive/")
    plain = load(tmp_path, tmp_path / "files")
    again = load(tmp_path, tmp_path / "N-Caltech101-archive.zip")
    assert (np.asarray(again.inputs) == np.asarray(plain.inputs)).all()
    assert again.splits.tolist() == plain.splits.tolist()


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("Caltech101/accordion/image_0001.bin.bin", b"12345", r"is not named <class>/image_<number>.bin"),
        ("Caltech101/accordion/image_1.bin", bytes(5), "is recording 1 of class accordion, as is "),
        ("Caltech101/accordion/image_0009.bin", bytes(7), "truncated: 2 bytes after the last complete event"),
        ("Caltech101/accordion/image_0009.bin", bytes([250, 3, 0, 0, 1]), "outside the sensor of 240x180 pixels"),
        ("Caltech101/accordion/image_0009.bin", bytes([1, 200, 0, 0, 1]), "outside the sensor of 240x180 pixels"),
        ("train/accordion/image_0009.bin", bytes(5), "already divided.*event_folder.*sensor_size=.240,180."),
    ],
)
def test_files_that_do_not_fit_are_refused(tmp_path: Path, name: str, content: bytes, problem: str) -> None:
    made.write_ncaltech101(tmp_path / "files", per_class=3)
    made.write(tmp_path / "files" / name, content)
    with pytest.raises(UserError, match=problem):
        load(tmp_path, tmp_path / "files")
