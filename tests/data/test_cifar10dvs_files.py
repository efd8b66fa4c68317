"""CIFAR10-DVS from its archives, and its frames as TET's code stores them."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision import transforms

from gradspike.data.events.frames import to_frames
from gradspike.data.sets.cifar10dvs import CLASS_NAMES
from gradspike.errors import ConfigError, UserError
from helpers import event_samples as made
from helpers.data_samples import pack
from helpers.event_sources import SESSIONS, load, source, split_of, write_sessions


@pytest.mark.parametrize("ending", ["aedat", "aedat4", "npz"])
def test_cifar10dvs_is_split_nine_to_one_by_number(tmp_path: Path, ending: str) -> None:
    """By number, not by name: 10 comes after 9."""
    written = made.write_cifar10dvs(tmp_path / "CIFAR10DVS", classes=2, per_class=20, ending=ending)
    samples = load("cifar10dvs", tmp_path, classes=2, image_size=16)
    splits = split_of(samples)
    assert splits.keys() == written.keys()
    for name, split in splits.items():
        number = int(name.rpartition("_")[2].partition(".")[0])
        assert (split == "test") == (number >= 18)
    assert sum(split == "val" for split in splits.values()) == 2 * 2
    for index, name in enumerate(samples.names):
        frames = to_frames(written[name], (128, 128), 4, "equal_count", image_size=(16, 16))
        assert (samples.inputs[index] == frames).all()
    assert samples.class_names == CLASS_NAMES[:2]


def test_the_split_is_recorded_by_file_name(tmp_path: Path) -> None:
    made.write_cifar10dvs(tmp_path / "CIFAR10DVS", classes=2)
    samples = load("cifar10dvs", tmp_path, classes=2, image_size=16)
    (record,) = (tmp_path / "prepared").glob("cifar10dvs-split-*/split.csv")
    with record.open(newline="") as file:
        recorded = {row["name"]: row["split"] for row in csv.DictReader(file)}
    assert recorded == split_of(samples)


def test_folds_are_disjoint_and_cover_everything_without_decoding_again(tmp_path: Path) -> None:
    made.write_cifar10dvs(tmp_path / "CIFAR10DVS", classes=2, per_class=12)
    options: dict[str, Any] = {"classes": 2, "image_size": 16, "folds": 5}
    tested = []
    for fold in range(5):
        splits = split_of(load("cifar10dvs", tmp_path, test_fold=fold, **options))
        tested.append({name for name, split in splits.items() if split == "test"})
    assert len(set.union(*tested)) == sum(len(names) for names in tested) == 24
    assert (
        load("cifar10dvs", tmp_path, **options).splits.tolist()
        == load("cifar10dvs", tmp_path, test_fold=4, **options).splits.tolist()
    )
    assert len(list((tmp_path / "prepared").glob("cifar10dvs-????????????????"))) == 1


def test_cifar10dvs_comes_as_ten_archives_also_inside_another(tmp_path: Path) -> None:
    made.write_cifar10dvs(tmp_path / "plain", classes=3)
    (tmp_path / "CIFAR10DVS").mkdir()
    for name in CLASS_NAMES[:3]:
        pack(tmp_path / "plain" / name, tmp_path / f"CIFAR10DVS/{name}.zip", f"{name}/")
    pack(tmp_path / "CIFAR10DVS", tmp_path / "nested.zip")
    options: dict[str, Any] = {"classes": 3, "image_size": 16}
    plain = load("cifar10dvs", tmp_path, source=str(tmp_path / "plain"), **options)
    for other in (None, str(tmp_path / "nested.zip")):
        again = load("cifar10dvs", tmp_path, source=other, **options)
        assert split_of(again) == split_of(plain)
        assert (np.asarray(again.inputs) == np.asarray(plain.inputs)).all()
    leftovers = [path for path in (tmp_path / "prepared").rglob("*") if path.suffix == ".zip" or "archive" in path.name]
    assert not leftovers


def test_the_same_recording_in_two_formats_is_refused(tmp_path: Path) -> None:
    made.write_cifar10dvs(tmp_path / "CIFAR10DVS", classes=1, per_class=3)
    made.write(tmp_path / "CIFAR10DVS/airplane/cifar10_airplane_1.npz", made.npz_bytes(made.recording(0)))
    with pytest.raises(UserError, match=r"cifar10_airplane_1.npz: is recording 1 of class airplane, as is .*_1.aedat"):
        load("cifar10dvs", tmp_path, classes=1, image_size=16)


def test_more_folds_than_recordings_are_refused(tmp_path: Path) -> None:
    """The test split would be empty."""
    made.write_cifar10dvs(tmp_path / "CIFAR10DVS", classes=2, per_class=4)
    with pytest.raises(ConfigError, match=r"folds=10: the class airplane has 4 recordings.*Set dataset.folds=4"):
        load("cifar10dvs", tmp_path, classes=2, image_size=16)
    assert len(load("cifar10dvs", tmp_path, classes=2, image_size=16, folds=4).indices("test")) == 2


def test_two_recordings_of_one_name_are_refused(tmp_path: Path) -> None:
    """Otherwise one of them could be used for training and the other for validation."""
    folder = tmp_path / "event_folder"
    made.write_event_folder(folder)
    made.write(folder / "train/bee/0.npz", made.npz_bytes(made.recording(10)))
    with pytest.raises(UserError, match=r"bee/0.npz: has the same name as .*bee/0.aedat"):
        load("event_folder", tmp_path, image_size=16, classes=3)
    assert len(load("event_folder", tmp_path, image_size=16, classes=3, on_bad_file="skip").names) == 24
    write_sessions(tmp_path / "sessions")
    made.write(tmp_path / "sessions/session_a/Caixa.npz", made.npz_bytes(made.recording(0)))
    made.write(tmp_path / "sessions/session_a/notes.h5", b"hello")
    with pytest.raises(UserError) as error:
        load("event_folder", tmp_path, source=str(tmp_path / "sessions"), **SESSIONS)
    assert "session_a/Caixa.npz: has the same name as" in str(error.value)
    assert "session_a/notes.h5: has none of the extensions" in str(error.value)


def test_ready_frames_are_what_the_released_code_loads(tmp_path: Path) -> None:
    written = made.write_ready_frames(tmp_path / "dvs-cifar10")
    samples = load("cifar10dvs", tmp_path, resize="tet", val_fraction=0.0)
    steps = [transforms.ToPILImage(), transforms.Resize(size=(48, 48)), transforms.ToTensor()]
    for index, name in enumerate(samples.names):
        theirs = torch.stack([transforms.Compose(steps)(written[name][..., t]) for t in range(4)])
        assert torch.equal(torch.from_numpy(np.array(samples.inputs[index])).div(255), theirs)
        assert samples.labels[index] == int(name.partition("/")[2][0])
        assert split_of(samples)[name] == name.partition("/")[0]
    counted = load("cifar10dvs", tmp_path, image_size=32, val_fraction=0.0)
    for index, name in enumerate(counted.names):
        blocks = written[name].permute(3, 0, 1, 2).reshape(4, 2, 32, 4, 32, 4).sum((3, 5))
        assert torch.equal(torch.from_numpy(np.array(counted.inputs[index])), blocks.to(torch.uint8))
    with pytest.raises(UserError, match="contains 4 frames: set time_steps=4"):
        load("cifar10dvs", tmp_path, time_steps=5, resize="tet")
    with pytest.raises(ConfigError, match="already split into the folders"):
        load("cifar10dvs", tmp_path, resize="tet", test_fold=3)


def test_tet_frames_reach_the_network_as_zero_to_one(tmp_path: Path) -> None:
    from gradspike.data.augment.batch import BatchTransform

    made.write_cifar10dvs(tmp_path / "CIFAR10DVS", classes=1, per_class=10)
    opened = source("cifar10dvs", tmp_path, classes=1, resize="tet", image_size=16, augment={"roll": 0})
    stored = torch.from_numpy(np.array(opened.load().inputs[:2]))
    fed = BatchTransform(opened.config, seed=0)(stored, torch.arange(2), None)
    assert torch.equal(fed, stored.transpose(0, 1).div(255))
    assert 0 < fed.max() <= 1


def test_recordings_beside_ready_frames_are_not_passed_over(tmp_path: Path) -> None:
    made.write_ready_frames(tmp_path / "both")
    made.write_cifar10dvs(tmp_path / "both", classes=1, per_class=2)
    with pytest.raises(
        UserError, match=r"contains 2 recordings, for example .*cifar10_airplane_0.aedat, and 13 files of ready frames"
    ):
        load("cifar10dvs", tmp_path, source=str(tmp_path / "both"), resize="tet")
