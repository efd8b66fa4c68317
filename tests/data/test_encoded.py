"""Compressed images: stored bytes, crops, and loading as for any other data set."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from torch import Tensor
from torchvision.io import decode_image
from torchvision.transforms.v2 import RandomResizedCrop, Resize
from torchvision.transforms.v2 import functional as TF

from gradspike.data.augment.counter_random import CounterRandom
from gradspike.data.augment.draws import Draw
from gradspike.data.datamodule import DataModule
from gradspike.data.options.pictures import ImageAugmentConfig, ImageFolderConfig, ImageNetConfig
from gradspike.data.pictures.encoded import CROP_ATTEMPTS, EncodedPictures, crop_box, middle
from gradspike.data.pictures.encoded_source import encode
from gradspike.data.sets.imagenet import ImageNet
from gradspike.errors import ConfigError, UserError
from helpers.picture_samples import photographs

SIZES = [(50, 70), (64, 64), (40, 90), (120, 41), (33, 47), (36, 36)]
"""Height and width of the images of a class."""


def picture(number: int, mode: str = "RGB") -> Image.Image:
    height, width = SIZES[number % len(SIZES)]
    return Image.fromarray(photographs(8, height, width, number)[7].permute(1, 2, 0).numpy()).convert(mode)


def file_bytes(number: int, kind: str, mode: str = "RGB", **options: Any) -> bytes:
    file = io.BytesIO()
    picture(number, mode).save(file, kind, **options)
    return file.getvalue()


def as_tensor(content: bytes) -> Tensor:
    return decode_image(torch.frombuffer(bytearray(content), dtype=torch.uint8))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ImageNet's layout with two classes of images of many sizes, and the data folder around it."""
    data_dir = tmp_path_factory.mktemp("data")
    for split, count in (("train", 10), ("val", 4)):
        for place, wnid in enumerate(("n01440764", "n01443537")):
            (data_dir / "imagenet" / split / wnid).mkdir(parents=True)
            for number in range(count):
                name = data_dir / "imagenet" / split / wnid / f"{wnid}_{number}.JPEG"
                name.write_bytes(file_bytes(100 * place + number, "JPEG"))
    return data_dir


def configured(**options: Any) -> ImageNetConfig:
    fixed = {"classes": 2, "image_size": 32, "eval_shorter_side": 36, "shorter_side": 48, "val_fraction": 0.2}
    return ImageNetConfig(**{**fixed, "workers": 0, "batch_size": 8, **options})


@pytest.mark.parametrize(
    ("kind", "mode"), [("JPEG", "RGB"), ("JPEG", "L"), ("PNG", "RGB"), ("PNG", "L"), ("WEBP", "RGB")]
)
def test_a_small_picture_is_kept_byte_for_byte(kind: str, mode: str) -> None:
    content = file_bytes(4, kind, mode)
    assert encode(content, 48) == content


@pytest.mark.parametrize(("kind", "mode"), [("JPEG", "CMYK"), ("PNG", "P"), ("PNG", "RGBA"), ("PNG", "I;16")])
def test_other_modes_become_rgb_once(kind: str, mode: str) -> None:
    if mode == "I;16":
        file = io.BytesIO()
        Image.fromarray((np.asarray(picture(4, "L")).astype(np.uint16) << 8) + 77).save(file, "PNG")
        content = file.getvalue()
    else:
        content = file_bytes(4, kind, mode)
    kept = Image.open(io.BytesIO(encode(content, 48)))
    assert (kept.format, kept.mode, kept.size) == ("JPEG", "RGB", (47, 33))
    difference = np.asarray(kept).astype(int) - np.asarray(picture(4, "L" if mode == "I;16" else "RGB").convert("RGB"))
    assert np.abs(difference).mean() < 12


@pytest.mark.parametrize("number", range(4))
def test_a_large_picture_is_scaled_to_the_shorter_side(number: int) -> None:
    before = picture(number)
    kept = Image.open(io.BytesIO(encode(file_bytes(number, "PNG"), 40)))
    assert min(kept.size) == 40
    assert max(kept.size) == round(max(before.size) * 40 / min(before.size))
    expected = before.resize(kept.size, Image.Resampling.LANCZOS)
    # Compared in grey: JPEG keeps colour at half the resolution.
    assert np.abs(np.asarray(kept.convert("L")).astype(int) - np.asarray(expected.convert("L"))).mean() < 3


@pytest.mark.parametrize("content", [b"", b"no picture", file_bytes(0, "JPEG")[:300]])
def test_what_cannot_be_decoded_is_found_at_preparation(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"empty|not a|decoded"):
        encode(content, 48)


@pytest.mark.parametrize("smallest", [0.08, 0.5, 1.0])
@pytest.mark.parametrize(("height", "width"), [(100, 100), (100, 150), (30, 300), (300, 30)])
def test_random_crops_have_the_distribution_of_torchvision(height: int, width: int, smallest: float) -> None:
    random = CounterRandom.per_sample(0, 0, np.arange(600))
    ours = np.array([crop_box(height, width, smallest, CounterRandom(random.key[i : i + 1])) for i in range(600)])
    transform, like = RandomResizedCrop(8, scale=(smallest, 1.0)), torch.zeros(3, height, width)
    torch.manual_seed(0)
    drawn = [transform.make_params([like]) for _ in range(600)]
    theirs = np.array([[box[name] for name in ("top", "left", "height", "width")] for box in drawn])
    assert (ours[:, :2] >= 0).all()
    assert (ours[:, 0] + ours[:, 2] <= height).all()
    assert (ours[:, 1] + ours[:, 3] <= width).all()
    for column in range(4):
        error = np.hypot(ours[:, column].std(), theirs[:, column].std()) / np.sqrt(600)
        assert abs(ours[:, column].mean() - theirs[:, column].mean()) <= 4.5 * error + 1e-9


def test_a_crop_that_never_fits_is_the_largest_in_the_middle() -> None:
    assert Draw.CROP + 4 * CROP_ATTEMPTS < 2**31
    for key in range(5):
        random = CounterRandom.per_sample(0, 0, np.array([key]))
        assert crop_box(300, 30, 1.0, random) == (130, 0, 40, 30)
        assert crop_box(30, 300, 1.0, random) == (0, 130, 30, 40)


def test_a_training_picture_is_the_resized_crop_of_the_stored_one(folder: Path) -> None:
    samples = ImageNet(configured(), 1, folder).load()
    inputs = samples.inputs
    assert isinstance(inputs, EncodedPictures)
    index = samples.indices("train")
    fetched = inputs.fetch(index, (3, 7))
    random = CounterRandom.per_sample(3, 7, index)
    for place, number in enumerate(index.tolist()):
        stored = as_tensor(bytes(inputs.stored[inputs.offsets[number] : inputs.offsets[number + 1]]))
        top, left, height, width = crop_box(*stored.shape[1:], 0.08, CounterRandom(random.key[place : place + 1]))
        expected = TF.resized_crop(stored, top, left, height, width, [32, 32], antialias=True)
        assert np.array_equal(fetched[place], expected.numpy())
    assert (fetched != inputs.fetch(index, (3, 8))).any(axis=(1, 2, 3)).all()


def test_an_evaluation_picture_is_the_middle_as_torchvision_and_pil_cut_it(folder: Path) -> None:
    samples = ImageNet(configured(), 1, folder).load()
    for number in samples.indices("test").tolist():
        content = bytes(samples.inputs.stored[samples.inputs.offsets[number] : samples.inputs.offsets[number + 1]])
        fetched = samples.inputs[np.array([number])][0]
        assert np.array_equal(fetched, TF.center_crop(Resize(36)(as_tensor(content)), [32, 32]).numpy())
        by_pil = TF.center_crop(Resize(36)(Image.open(io.BytesIO(content)).convert("RGB")), [32, 32])
        assert np.abs(fetched.transpose(1, 2, 0).astype(int) - np.asarray(by_pil)).max() <= 3, "rounding, twice"


def test_the_middle_of_a_picture_of_the_right_size_is_itself() -> None:
    stored = photographs(5, 36, 36)[4]
    assert torch.equal(middle(stored, 36, 36), stored)


def test_the_samples_of_imagenet(folder: Path) -> None:
    samples = ImageNet(configured(), 1, folder).load()
    assert samples.inputs.shape == (28, 3, 32, 32)
    assert [len(samples.indices(split)) for split in ("train", "val", "test")] == [16, 4, 8]
    assert samples.class_names == ("n01440764", "n01443537")
    assert all(samples.class_names[label] in name for label, name in zip(samples.labels, samples.names, strict=True))
    assert (samples.splits == 2).tolist() == [name.startswith("val/") for name in samples.names]


def test_another_size_of_crops_needs_no_new_preparation(folder: Path) -> None:
    one, two = (ImageNet(configured(**options), 1, folder).load() for options in ({}, {"image_size": 24}))
    assert one.inputs.stored.filename == two.inputs.stored.filename
    assert ImageNet(configured(shorter_side=40), 1, folder).load().inputs.stored.filename != one.inputs.stored.filename


def test_standard_normalisation_is_measured_on_training_pictures(folder: Path) -> None:
    samples = ImageNet(configured(normalize="standard"), 1, folder).load()
    values = samples.inputs[samples.indices("train")] / 255
    assert np.allclose(samples.mean, values.mean(axis=(0, 2, 3)), atol=1e-9)
    assert np.allclose(samples.std, values.std(axis=(0, 2, 3)), atol=1e-9)


def fed(folder: Path, epoch: int, world_size: int = 1, training: bool = True, **options: Any) -> dict[int, Tensor]:
    """The network's inputs in one epoch, by sample."""
    seen = {}
    for rank in range(world_size):
        data = DataModule(configured(**options), 1, 0, folder)
        data.setup()
        progress = SimpleNamespace(batch_progress=SimpleNamespace(current=SimpleNamespace(ready=0)))
        data.trainer = SimpleNamespace(  # type: ignore[assignment]
            current_epoch=epoch,
            global_rank=rank,
            world_size=world_size,
            fit_loop=SimpleNamespace(epoch_loop=progress),
            strategy=SimpleNamespace(root_device=torch.device("cpu")),
            training=training,
        )
        for batch in data.train_dataloader() if training else data.test_dataloader():
            arrived = data.on_after_batch_transfer(data.on_before_batch_transfer(batch, 0), 0)
            seen |= dict(zip(arrived["index"].tolist(), arrived["input"], strict=True))
    return seen


def test_workers_batches_and_devices_change_no_sample(folder: Path) -> None:
    augmented = ImageAugmentConfig(flip=True, resized_crop=0.08, autoaugment="imagenet", cutout=4)
    reference = fed(folder, 2, augment=augmented)
    assert len(reference) == 16
    for options in ({"workers": 2}, {"batch_size": 4}, {"world_size": 2}):
        other = fed(folder, 2, augment=augmented, **options)
        assert reference.keys() == other.keys()
        assert all(torch.equal(reference[index], other[index]) for index in reference)
    assert any(not torch.equal(reference[index], fed(folder, 3, augment=augmented)[index]) for index in reference)
    evaluated = fed(folder, 2, training=False)
    assert all(torch.equal(evaluated[index], fed(folder, 5, training=False)[index]) for index in evaluated)


@pytest.mark.parametrize(
    ("remove", "words"),
    [("val", r"val/.*ln -s train val"), ("train", r"train/<class>/"), (None, r"2 classes.*dataset.classes=2")],
)
def test_missing_files_are_reported(folder: Path, tmp_path: Path, remove: str | None, words: str) -> None:
    (tmp_path / "imagenet").mkdir()
    for split in ("train", "val"):
        if split != remove:
            (tmp_path / "imagenet" / split).symlink_to(folder / "imagenet" / split)
    with pytest.raises((UserError, ConfigError), match=words):
        ImageNet(configured(classes=2 if remove else 1000), 1, tmp_path).load()


def test_the_official_flat_validation_folder_is_refused_with_a_way_out(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "imagenet" / "val").mkdir(parents=True)
    (tmp_path / "imagenet" / "train").symlink_to(folder / "imagenet" / "train")
    for number in range(1, 4):
        (tmp_path / "imagenet" / "val" / f"ILSVRC2012_val_{number:08d}.JPEG").write_bytes(file_bytes(number, "JPEG"))
    with pytest.raises(UserError, match=r"val/ has 3 images .*outside class folders(.|\n)*ILSVRC2012_devkit_t12"):
        ImageNet(configured(), 1, tmp_path).load()


def test_the_official_archives_are_not_taken_for_pictures(tmp_path: Path) -> None:
    (tmp_path / "imagenet").mkdir()
    (tmp_path / "imagenet" / "ILSVRC2012_img_train.tar").write_bytes(b"")
    with pytest.raises(UserError, match=r"archives.*Unpack"):
        ImageNet(configured(), 1, tmp_path).load()


def test_a_middle_larger_than_the_picture_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"eval_shorter_side=256 .*image_size=300"):
        ImageFolderConfig(classes=2, image_size=300, storage="encoded")
