"""Labels are checked for their range, in label files and in opened prepared data sets."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gradspike.data.datamodule import DataModule
from gradspike.data.options.pictures import Cifar10Config, DigitsConfig
from gradspike.data.registry import DATASETS
from gradspike.data.sets.cifar import Cifar
from gradspike.data.sets.digits import Digits
from gradspike.errors import UserError
from helpers import event_samples as made
from helpers.data_samples import write_cifar_pickles


@pytest.mark.parametrize(
    ("array", "value", "reason"),
    [
        ("labels", 10, r"has 2 of 1,797 labels outside 0 to 9\. The first is 10, of sample 7"),
        ("labels", -1, r"has 2 of 1,797 labels outside 0 to 9\. The first is -1, of sample 7"),
        ("splits", 3, r"has 2 of 1,797 splits outside 0 to 2\. The first is 3, of sample 7"),
    ],
)
def test_labels_out_of_range_are_refused_when_a_set_is_opened(
    tmp_path: Path, array: str, value: int, reason: str
) -> None:
    """As in a user's data set, or in one written by hand."""

    class Mislabelled(Digits):
        def load(self) -> Any:
            from dataclasses import replace

            samples = super().load()
            changed = np.array(getattr(samples, array))
            changed[[7, 20]] = value
            return replace(samples, **{array: changed})

    source = Mislabelled(DigitsConfig(), 4, tmp_path)
    with pytest.raises(UserError, match=reason):
        source.checked()
    data = DataModule(DigitsConfig(), 4, 0, tmp_path)
    data.source = source
    for open_it in (data.prepare_data, data.setup):
        with pytest.raises(UserError, match=reason):
            open_it()


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ([0, 3, 9, 1], r"has 2 of 4 labels outside 0 to 2; the first is 3, of image 1"),
        ([0, 1, 2, -1], r"has 1 of 4 labels outside 0 to 2; the first is -1, of image 3"),
        ([0.0, 1.0, 2.0, 0.0], r"has labels of type float64; they must be whole numbers"),
    ],
)
def test_labels_of_cifars_pickles(tmp_path: Path, labels: list[float], reason: str) -> None:
    write_cifar_pickles(tmp_path / "pickles")
    batch = tmp_path / "pickles" / "data_batch_2"
    batch.write_bytes(pickle.dumps(pickle.loads(batch.read_bytes()) | {"labels": labels}, protocol=2))
    source = Cifar(Cifar10Config(source=str(tmp_path / "pickles"), classes=3), 4, tmp_path)
    source.prepare_workers = 1
    with pytest.raises(UserError, match=rf"data_batch_2: {reason}"):
        source.load()


def test_labels_of_ready_frames_are_counted_and_named_by_file(tmp_path: Path) -> None:
    made.write_ready_frames(tmp_path / "dvs-cifar10")
    for number, label in ((3, 10.0), (7, 255.0)):
        path = tmp_path / f"dvs-cifar10/train/{number}.pt"
        torch.save([torch.load(path, weights_only=True)[0], torch.tensor([label])], path)
    config = DATASETS.config_class("cifar10dvs")(name="cifar10dvs", resize="tet")
    source = DATASETS.implementation("cifar10dvs")(config, 4, tmp_path)
    source.prepare_workers = 1
    with pytest.raises(UserError, match=r"^2 unusable files") as error:
        source.load()
    assert "train/3.pt: has label 10; with 10 classes, labels are 0 to 9" in str(error.value)
    assert "train/7.pt: has label 255" in str(error.value)
