"""The scripts that measure claims: the rule of STDP by hand, the encoder's pictures, the small CIFAR-10."""

from __future__ import annotations

import zipfile
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest
import torch

from helpers.command import ROOT


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> ModuleType:
    import importlib

    monkeypatch.syspath_prepend(str(ROOT / "benchmarks" / "claims"))
    return importlib.import_module(request.param)


@pytest.mark.parametrize("script", ["stdp"], indirect=True)
def test_stdp_strengthens_inputs_that_came_before_the_spike(script: ModuleType) -> None:
    weights = torch.full((2, 2, 5, 5), 0.5)
    weights[1] -= 0.1  # so that map 0 wins wherever both fire
    spikes = torch.zeros(script.STEPS, 2, 8, 8)
    spikes[0, :, 2:5, 2:5] = 1  # 18 inputs of 0.5 each exceed the threshold of 5 at once
    before = weights.clone()
    script._learn(weights, spikes, plus=0.1, minus=-0.05)
    # The strongest neurons see all inputs; the first of them stands at row 2, column 2.
    arrived = torch.zeros(2, 5, 5, dtype=torch.bool)
    arrived[:, 2:5, 2:5] = True
    change = torch.where(arrived, 0.1, -0.05) * 0.5 * 0.5
    torch.testing.assert_close(weights[0], before[0] + change)
    # Map 1 is inhibited in the winner's neighbourhood, where alone it would have fired.
    assert torch.equal(weights[1], before[1])


@pytest.mark.parametrize("script", ["stdp"], indirect=True)
def test_stdp_changes_nothing_without_a_spike(script: ModuleType) -> None:
    weights = torch.full((2, 2, 5, 5), 0.5)
    script._learn(weights, torch.zeros(script.STEPS, 2, 8, 8), plus=0.1, minus=-0.05)
    assert torch.equal(weights, torch.full((2, 2, 5, 5), 0.5))


@pytest.mark.parametrize("script", ["encoding"], indirect=True)
def test_rates_of_the_encoder_by_hand(script: ModuleType) -> None:
    # Normalised to -1 and 1 times sqrt(3/4): u of the bright pixels is 0.866, and 1.039 after one step without a spike.
    images = torch.tensor([[0.0, 1.0], [0.0, 1.0]])[None, None]
    dark, bright = script.rate_picture(images, "1.0")[0, 0, 0]
    assert (dark, bright) == (0, 0.5)  # fires at every second step


@pytest.mark.parametrize("script", ["small_cifar10"], indirect=True)
def test_small_cifar10_takes_images_at_equal_distances(script: ModuleType, tmp_path: Path) -> None:
    source, target = tmp_path / "all.zip", tmp_path / "small.zip"
    with zipfile.ZipFile(source, "w") as archive:
        for split, count in (("train", 680), ("test", 400)):
            for number in range(count):
                archive.writestr(f"{split}/cat/{number:03}.png", str(number))
    script.main(str(source), str(target))
    with zipfile.ZipFile(target) as archive:
        names = archive.namelist()
        assert Counter(name.split("/")[0] for name in names) == {"train": 340, "test": 200}
        assert names[-1] == "train/cat/678.png"
        assert archive.read("test/cat/002.png") == b"2"


@pytest.mark.parametrize("script", ["small_nmnist"], indirect=True)
def test_small_nmnist_moves_every_second_training_recording_of_a_digit(script: ModuleType, tmp_path: Path) -> None:
    source, target = tmp_path / "all.zip", tmp_path / "small.zip"
    with zipfile.ZipFile(source, "w") as archive:
        for name in (
            "Test/3/00001.bin",
            "Train/3/00004.bin",
            "Train/3/00001.bin",
            "Train/3/00002.bin",
            "Train/5/9.bin",
        ):
            archive.writestr(name, name)
    script.main(str(source), str(target))
    with zipfile.ZipFile(target) as archive:
        assert {name: archive.read(name).decode() for name in archive.namelist()} == {
            "Test/3/test_00001.bin": "Test/3/00001.bin",
            "Train/3/train_00001.bin": "Train/3/00001.bin",
            "Test/3/train_00002.bin": "Train/3/00002.bin",
            "Train/3/train_00004.bin": "Train/3/00004.bin",
            "Train/5/train_9.bin": "Train/5/9.bin",
        }
