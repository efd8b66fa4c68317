"""Tiny-ImageNet: its own layout, its lists and files, and the real pictures."""

from __future__ import annotations

import io
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gradspike.data.options.pictures import TinyImageNetConfig
from gradspike.data.sets.tiny_imagenet import TinyImageNet
from gradspike.data.source import SPLITS, Samples
from gradspike.errors import UserError
from helpers.data_samples import pack, write_class_folders, write_tiny_imagenet
from helpers.pictures import same_pictures


def load_tiny(data_dir: Path, source: Path, **options: Any) -> Samples:
    return TinyImageNet(TinyImageNetConfig(source=str(source), classes=3, **options), 4, data_dir).load()


@pytest.mark.parametrize("packed", [False, True])
def test_tiny_imagenets_own_layout(tmp_path: Path, packed: bool) -> None:
    written = write_tiny_imagenet(tmp_path / "tiny-imagenet-200")
    source = tmp_path / "tiny-imagenet-200"
    if packed:
        source = pack(source, tmp_path / "t.zip", "tiny-imagenet-200/")
    samples = load_tiny(tmp_path, source)
    assert same_pictures(samples, written)
    assert samples.class_names == ("n01000000 ant", "n02000000", "n03000000"), "sorted, not as in wnids.txt"
    labels = dict(zip(samples.names, samples.labels.tolist(), strict=True))
    assert labels["train/n03000000/images/n03000000_1.png"] == 2
    assert [labels[f"val/images/val_{number}.png"] for number in range(6)] == [2, 2, 0, 0, 1, 1]
    assert [len(samples.indices(split)) for split in SPLITS] == [9, 3, 6]


def test_tiny_imagenet_sorted_into_class_folders(tmp_path: Path) -> None:
    written = write_class_folders(tmp_path / "t", size=64, counts={"train": 2, "val": 1})
    assert same_pictures(load_tiny(tmp_path, tmp_path / "t"), written)


def annotate(folder: Path, change: Callable[[list[str]], list[str]]) -> None:
    path = folder / "val" / "val_annotations.txt"
    path.write_text("".join(change(path.read_text().splitlines(keepends=True))))


DISAGREEMENTS: dict[str, tuple[Callable[[Path], object], str, int]] = {
    "a name without a file": (
        lambda folder: annotate(folder, lambda lines: [*lines, "gone.png\tn01000000\t0\t0\t1\t1\n"]),
        r"val_annotations\.txt, line 7: lists gone\.png, which is not in val/images",
        18,
    ),
    "an unknown class": (
        lambda folder: annotate(folder, lambda lines: [lines[0].replace("n03000000", "n99"), *lines[1:]]),
        r"line 1: gives val_0\.png the class 'n99', which is not in wnids\.txt",
        17,
    ),
    "a name twice": (
        lambda folder: annotate(folder, lambda lines: [*lines, lines[0]]),
        r"line 7: lists val_0\.png twice",
        18,
    ),
    "a line cut off": (
        lambda folder: annotate(folder, lambda lines: [*lines[:-1], "val_5.png"]),
        r"line 6: gives val_5\.png the class ''",
        17,
    ),
    "a file without a line": (
        lambda folder: annotate(folder, lambda lines: lines[1:]),
        r"val/images/val_0\.png: is not in val/val_annotations\.txt",
        17,
    ),
    "a folder that is no class": (
        lambda folder: shutil.copytree(folder / "train" / "n01000000", folder / "train" / "n77"),
        r"train/n77: is not in wnids\.txt",
        18,
    ),
}


@pytest.mark.parametrize("kind", DISAGREEMENTS)
def test_tiny_imagenets_lists_and_files_must_agree(tmp_path: Path, kind: str) -> None:
    spoil, reason, left = DISAGREEMENTS[kind]
    folder = tmp_path / "tiny"
    write_tiny_imagenet(folder)
    spoil(folder)
    with pytest.raises(UserError, match=reason):
        load_tiny(tmp_path, folder)
    assert len(load_tiny(tmp_path, folder, on_bad_file="skip").labels) == left


def test_tiny_imagenet_without_its_list_or_a_class(tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    write_tiny_imagenet(folder)
    shutil.rmtree(folder / "train" / "n02000000")
    with pytest.raises(UserError, match=r"wnids\.txt lists classes without training images: n02000000"):
        load_tiny(tmp_path, folder, on_bad_file="skip")
    (folder / "wnids.txt").unlink()
    with pytest.raises(UserError, match=r"wnids\.txt is missing"):
        load_tiny(tmp_path, folder)


def test_real_tiny_imagenet_has_grey_pictures_too(shared_data: Path, tmp_path: Path) -> None:
    archive = shared_data / "tiny_imagenet_10.zip"
    if not archive.is_file():
        pytest.skip(f"{archive} is not there")
    config = TinyImageNetConfig(source=str(archive), classes=10)
    source = TinyImageNet(config, 4, tmp_path)
    source.prepare_workers = 1
    samples = source.load()
    assert [len(samples.indices(split)) for split in SPLITS] == [2250, 250, 500]
    grey = (samples.inputs[:, 0] == samples.inputs[:, 1]).all(axis=(1, 2))
    assert 0 < int(grey.sum()) < 300
    with zipfile.ZipFile(archive) as file:
        top = "tiny-imagenet-200/"
        lines = file.read(top + "val/val_annotations.txt").decode().splitlines()
        truth = {f"val/images/{line.split()[0]}": line.split()[1] for line in lines}
        for index in [*samples.indices("test")[::25], *samples.indices("train")[::150], *np.flatnonzero(grey)[:5]]:
            name = samples.names[index]
            picture = np.asarray(Image.open(io.BytesIO(file.read(top + name))).convert("RGB"))
            assert (samples.inputs[index].transpose(1, 2, 0) == picture).all()
            wnid = truth.get(name) or name.split("/")[1]
            assert samples.class_names[samples.labels[index]].split()[0] == wnid
