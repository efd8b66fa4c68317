"""Augmentation compared with slow references, and its independence of the other samples of a batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from torch import Tensor
from torchvision.transforms.v2 import functional as TF

from gradspike.data.augment.batch import BatchTransform, augment
from gradspike.data.augment.counter_random import CounterRandom
from gradspike.data.augment.draws import Draw
from gradspike.data.augment.nda import CUTOUT, LARGEST_ANGLE, ROLL, ROTATE, SHEAR, neuromorphic
from gradspike.data.augment.resample import cut_by_copies, cut_by_index, roll
from gradspike.data.datamodule import DataModule
from gradspike.data.options.base import DatasetConfig
from gradspike.data.options.events import Cifar10DvsConfig, EventAugmentConfig
from gradspike.data.options.pictures import Cifar10Config, DigitsConfig, ImageAugmentConfig, ImageFolderConfig
from gradspike.data.source import SPLITS, UNUSED
from helpers.picture_samples import photographs

EVERYTHING: dict[str, DatasetConfig] = {
    "pictures": Cifar10Config(augment=ImageAugmentConfig(shift=4, flip=True, autoaugment="cifar10", cutout=8)),
    "rand": Cifar10Config(
        augment=ImageAugmentConfig(
            flip=True,
            rand_augment="rand-m9-n2-mstd0.5-inc1",
            color_jitter=0.4,
            random_erasing=0.5,
            erasing_fill="pixel",
        )
    ),
    "frames": Cifar10DvsConfig(
        image_size=20, augment=EventAugmentConfig(shift=1, flip=True, roll=5, nda=True, cutout=4), normalize="peak"
    ),
}


def samples(kind: str, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    if kind != "frames":
        return photographs(count, 32, 32)
    return torch.randint(0, 400, (count, 3, 2, 20, 20), dtype=torch.int16, generator=generator)


def test_the_numbers_of_decisions_stay_as_they_are() -> None:
    """Draw numbers are constants: changing one would change the results of every run."""
    assert {draw.name: draw.value for draw in Draw} == {
        "ORDER": 0,
        "SHIFT_Y": 1,
        "SHIFT_X": 2,
        "FLIP": 3,
        "CUTOUT_Y": 4,
        "CUTOUT_X": 5,
        "ROLL_Y": 6,
        "ROLL_X": 7,
        "POLICY": 8,
        "FIRST_APPLIED": 9,
        "FIRST_SIGN": 10,
        "SECOND_APPLIED": 11,
        "SECOND_SIGN": 12,
        "NDA_CHOICE": 13,
        "NDA_Y": 14,
        "NDA_X": 15,
        "NDA_ANGLE": 16,
        "CROP": 32,
        "RAND_AUGMENT": 96,
        "JITTER_ORDER": 160,
        "JITTER_BRIGHTNESS": 161,
        "JITTER_CONTRAST": 162,
        "JITTER_SATURATION": 163,
        "ERASE": 176,
        "ERASE_NOISE": 217,
    }


@pytest.mark.parametrize("kind", EVERYTHING)
def test_augmentation_belongs_to_the_sample_and_not_to_the_batch(kind: str) -> None:
    inputs, index = samples(kind, 60), torch.arange(60) * 11
    transform = BatchTransform(EVERYTHING[kind], seed=1)
    batch_axis = 1 if kind == "frames" else 0
    whole = transform(inputs, index, 2)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(1))
    for part in torch.split(order, 7):
        result = transform(inputs[part], index[part], 2, index[part].numpy())
        assert torch.equal(result, whole.index_select(batch_axis, part))
    for seed, epoch in ((1, 3), (2, 2)):
        other = BatchTransform(EVERYTHING[kind], seed)(inputs, index, epoch)
        assert (other != whole).transpose(0, batch_axis).flatten(1).any(1).float().mean() > 0.9


@pytest.mark.parametrize("kind", EVERYTHING)
def test_evaluation_changes_nothing_but_the_scale(kind: str) -> None:
    inputs = samples(kind, 10)
    result = BatchTransform(EVERYTHING[kind], 0)(inputs, torch.arange(10), None)
    if kind != "frames":
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (Cifar10Config().mean, Cifar10Config().std))
        torch.testing.assert_close(result, (inputs / 255 - mean) / std)
    else:
        peaks = torch.tensor([int(sample.max()) for sample in inputs]).view(-1, 1, 1, 1)
        assert torch.equal(result, inputs.transpose(0, 1) / peaks)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", EVERYTHING)
def test_a_gpu_augments_alike(kind: str) -> None:
    inputs, index = samples(kind, 200), torch.arange(200)
    transform = BatchTransform(EVERYTHING[kind], 1)
    on_gpu = transform(inputs.cuda(), index.cuda(), 3, index.numpy()).cpu()
    torch.testing.assert_close(on_gpu, transform(inputs, index, 3), rtol=1e-6, atol=1e-6)


def test_a_silent_sample_stays_silent_when_divided_by_its_peak() -> None:
    inputs = torch.zeros(2, 3, 2, 20, 20, dtype=torch.uint8)
    result = BatchTransform(EVERYTHING["frames"], 0)(inputs, torch.arange(2), 0)
    assert torch.equal(result, torch.zeros(3, 2, 2, 20, 20))


@pytest.mark.parametrize("side", [1, 5, 8, 32])
def test_cutout_blanks_one_square_with_the_mean(side: int) -> None:
    inputs, index = photographs(40, 32, 32).clamp(min=1), torch.arange(40)
    plain = BatchTransform(Cifar10Config(augment=ImageAugmentConfig()), 0)(inputs, index, 0)
    cut = BatchTransform(Cifar10Config(augment=ImageAugmentConfig(cutout=side)), 0)(inputs, index, 0)
    random = CounterRandom.per_sample(0, 0, index.numpy())
    centres = np.stack([random.integers(draw, 0, 31) for draw in (Draw.CUTOUT_Y, Draw.CUTOUT_X)], 1)
    for b, (y, x) in enumerate(centres.tolist()):
        expected = plain[b].clone()
        top, left = y - side // 2, x - side // 2
        expected[:, max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)] = 0
        assert torch.equal(cut[b], expected)


def test_both_ways_to_cut_windows_agree() -> None:
    padded, places = torch.randint(0, 1000, (40, 6, 12, 15), dtype=torch.int16), torch.arange(40)
    windows = [cut(padded, places % 5, places % 7, places % 3 == 0, 8, 9) for cut in (cut_by_index, cut_by_copies)]
    assert torch.equal(windows[0].view(40, 6, 8, 9), windows[1])
    for b in range(40):
        window = padded[b, :, b % 5 : b % 5 + 8, b % 7 : b % 7 + 9]
        assert torch.equal(windows[1][b], window.flip(-1) if b % 3 == 0 else window)


@pytest.mark.parametrize("largest", [1, 3, 6, 9, 20])
def test_roll_is_circular(largest: int) -> None:
    inputs = torch.randint(0, 1000, (30, 2, 2, 6, 9), dtype=torch.int16)
    rows, columns = torch.randint(-largest, largest + 1, (2, 30))
    rolled = roll(inputs, rows, columns, largest)
    for b in range(30):
        assert torch.equal(rolled[b], inputs[b].roll((int(rows[b]), int(columns[b])), (-2, -1)))


def test_the_roll_option_moves_each_sample_by_its_own_numbers() -> None:
    inputs, index = samples("frames", 40), torch.arange(40)
    rolled = augment(inputs, index, EventAugmentConfig(roll=5), 0, 0)
    random = CounterRandom.per_sample(0, 0, index)
    rows, columns = (random.integers(draw, -5, 5).tolist() for draw in (Draw.ROLL_Y, Draw.ROLL_X))
    for b in range(40):
        assert torch.equal(rolled[b], inputs[b].roll((rows[b], columns[b]), (-2, -1)))


def one_by_one(sample: Tensor, choice: int, y: int, x: int, angle: float) -> Tensor:
    """Neuromorphic data augmentation of one sample, by torchvision as in the released code."""
    if choice == ROLL:
        return sample.roll((y, x), (-2, -1))
    if choice == ROTATE:
        return TF.rotate(sample.float(), angle).to(sample.dtype)
    if choice == SHEAR:
        moved = TF.affine(sample.float(), angle=0.0, translate=[0, 0], scale=1.0, shear=[angle, 0.0])
        return moved.to(sample.dtype)
    blank, side = sample.clone(), sample.shape[-1] // 3
    top, left = y - side // 2, x - side // 2
    blank[..., max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)] = 0
    return blank


@pytest.mark.parametrize("size", [48, 33])
def test_neuromorphic_augmentation_is_that_of_the_released_code(size: int) -> None:
    inputs, index = torch.randint(1, 300, (120, 2, 2, size, size), dtype=torch.int16), torch.arange(120)
    random = CounterRandom.per_sample(0, 0, index)
    choices = random.integers(Draw.NDA_CHOICE, 0, 3).tolist()
    results = neuromorphic(inputs, random)
    for b, choice in enumerate(choices):
        low, high = (-5, 5) if choice == ROLL else (0, size - 1)
        y, x = (int(random.integers(draw, low, high)[b]) for draw in (Draw.NDA_Y, Draw.NDA_X))
        angle = (2 * float(random.uniform(Draw.NDA_ANGLE)[b]) - 1) * LARGEST_ANGLE
        expected = one_by_one(inputs[b], choice, y, x, angle)
        # torchvision finds the places in float32: a pixel whose source lies on the border of two may differ.
        assert (results[b] != expected).float().mean() <= (0.002 if choice in (ROTATE, SHEAR) else 0), (choice, angle)
    assert {ROLL, ROTATE, SHEAR, CUTOUT} == set(choices)


def test_the_four_kinds_are_equally_likely_and_angles_uniform() -> None:
    random = CounterRandom.per_sample(0, 0, torch.arange(20_000))
    counts = torch.bincount(random.integers(Draw.NDA_CHOICE, ROLL, CUTOUT))
    assert (counts - 5000).abs().max() < 5 * math.sqrt(5000)
    assert len(counts) == 4


def test_the_order_is_shift_flip_autoaugment() -> None:
    inputs, index = photographs(30, 32, 32), torch.arange(30)
    step_by_step = inputs
    for options in ({"shift": 3}, {"flip": True}, {"autoaugment": "imagenet"}):
        step_by_step = augment(step_by_step, index, ImageAugmentConfig(**options), 0, 0)
    together = ImageAugmentConfig(shift=3, flip=True, autoaugment="imagenet")
    assert torch.equal(augment(inputs, index, together, 0, 0), step_by_step)


@pytest.mark.parametrize(
    ("config", "options", "words"),
    [
        (DigitsConfig, {"augment": {"autoaugment": "svhn"}}, "cifar10"),
        (DigitsConfig, {"augment": {"resized_crop": 0.5}}, "storage=encoded"),
        (Cifar10Config, {"augment": {"resized_crop": 0.5}}, "storage=encoded"),
        (Cifar10DvsConfig, {"augment": {"autoaugment": "cifar10"}}, "autoaugment"),
        (Cifar10DvsConfig, {"normalize": "peak", "count_scale": 2.0}, "peak"),
    ],
)
def test_options_that_do_not_suit_are_refused(config: type[DatasetConfig], options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        config(**options)


@pytest.fixture(scope="module")
def picture_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of two classes: 40 of each to train on, 5 of these held out for validation, 10 to test."""
    folder = tmp_path_factory.mktemp("pictures")
    for split, count in (("train", 40), ("test", 10)):
        for seed, name in enumerate(("cat", "dog")):
            (folder / "image_folder" / split / name).mkdir(parents=True)
            for number, picture in enumerate(photographs(count, 32, 32, seed)):
                file = folder / "image_folder" / split / name / f"{number}.png"
                Image.fromarray(picture.permute(1, 2, 0).numpy()).save(file)
    return folder


@pytest.fixture
def pictures_module(picture_folder: Path) -> Callable[..., DataModule]:
    def build(seed: int = 0, accumulate: int = 1, **options: Any) -> DataModule:
        fixed = {"image_size": 32, "classes": 2, "val_fraction": 0.125, "batch_size": 20}
        config = ImageFolderConfig(**{**fixed, "augment": EVERYTHING["pictures"].augment, **options})
        data = DataModule(config, 2, seed, picture_folder, accumulate)
        data.setup()
        return data

    return build


def fed(data: DataModule, epoch: int, rank: int = 0, world_size: int = 1) -> dict[int, Tensor]:
    """The network's inputs in one epoch, by sample."""
    progress = SimpleNamespace(batch_progress=SimpleNamespace(current=SimpleNamespace(ready=0)))
    data.trainer = SimpleNamespace(  # type: ignore[assignment]
        current_epoch=epoch,
        global_rank=rank,
        world_size=world_size,
        fit_loop=SimpleNamespace(epoch_loop=progress),
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
        training=True,
    )
    seen = {}
    for batch in data.train_dataloader():
        arrived = data.on_after_batch_transfer(data.on_before_batch_transfer(batch, 0), 0)
        assert arrived.keys() == {"input", "label", "index"}
        seen |= dict(zip(arrived["index"].tolist(), arrived["input"], strict=True))
    return seen


def test_workers_batches_devices_and_accumulation_change_no_sample(
    pictures_module: Callable[..., DataModule],
) -> None:
    reference = fed(pictures_module(), 4)
    assert len(reference) == 60, "of 70, in batches of 20"
    others = [
        fed(pictures_module(workers=2), 4),
        fed(pictures_module(batch_size=10), 4),
        fed(pictures_module(accumulate=4), 4),
        fed(pictures_module(), 4, 0, 2) | fed(pictures_module(), 4, 1, 2),
        fed(pictures_module(accumulate=2), 4, 0, 2) | fed(pictures_module(accumulate=2), 4, 1, 2),
    ]
    for other in others:
        common = reference.keys() & other.keys()
        assert len(common) >= 50
        assert all(torch.equal(reference[index], other[index]) for index in common)
    assert reference.keys() == others[2].keys() == others[3].keys() == others[4].keys()


def test_few_samples_of_each_class_are_a_fixed_subset(pictures_module: Callable[..., DataModule]) -> None:
    chosen = {}
    for count in (2, 5, 1000):
        data = pictures_module(train_per_class=count, seed=count)
        train = data.samples.indices("train")
        chosen[count] = set(train.tolist())
        assert np.bincount(data.samples.labels[train]).tolist() == [min(count, 35)] * 2
        assert [len(data.samples.indices(split)) for split in SPLITS[1:]] == [10, 20]
    assert chosen[2] < chosen[5] < chosen[1000]
    assert np.count_nonzero(pictures_module(train_per_class=2).samples.splits == UNUSED) == 66


def test_without_validation_samples_there_is_no_loader(pictures_module: Callable[..., DataModule]) -> None:
    data = pictures_module(val_fraction=0)
    assert data.val_dataloader() == []
    assert len(fed(data, 0)) == 80
    assert len(pictures_module().val_dataloader()) == 1


def test_a_small_set_is_in_memory_while_training(pictures_module: Callable[..., DataModule]) -> None:
    data = pictures_module()
    assert isinstance(data.samples.inputs, np.memmap)
    before = np.array(data.samples.inputs)
    data.train_dataloader()
    assert not isinstance(data.samples.inputs, np.memmap)
    assert (data.samples.inputs == before).all()


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_loader_processes_that_are_not_forked_map_a_small_set(
    pictures_module: Callable[..., DataModule], monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Each would receive a copy of what has been read into memory."""
    monkeypatch.setattr("multiprocessing.get_start_method", lambda: method)
    data = pictures_module(workers=1)
    data.train_dataloader()
    assert isinstance(data.samples.inputs, np.memmap)
    data = pictures_module()  # the training process itself fetches
    data.train_dataloader()
    assert not isinstance(data.samples.inputs, np.memmap)
