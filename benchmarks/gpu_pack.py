"""CIFAR-10 in a zip file small enough to take along: all test images, and as many training images as fit."""

from __future__ import annotations

import io
import tempfile
import zipfile
from collections.abc import Iterator
from itertools import chain, zip_longest
from pathlib import Path

import numpy as np

from gradspike.errors import UserError
from gradspike.shown import counted

LIMIT = 60 * 2**20
"""Bytes of the images; with the zip file's own, a pack stays below 64 MiB."""
MINIMUM = 2
"""Training images of a class, without which nothing can be trained."""


def pack(source: Path | None, target: Path, limit: int = LIMIT) -> None:
    """Write the pack, as lossless WebP at split/class/number.webp. `source`: an archive or folder that gradspike reads.

    Training images are taken in turn from all classes, so these stay of equal size. Raises UserError if there are no
    files, or if they do not fit.
    """
    if source is None:
        raise UserError("--pack: no CIFAR-10 was found; name its archive or folder with --data.")
    with tempfile.TemporaryDirectory(dir=target.absolute().parent) as folder:
        partial = Path(folder) / target.name
        images, size = 0, 0
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
            for name, content in encoded(source, Path(folder)):
                if size + len(content) > limit:
                    break
                archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content)
                images, size = images + 1, size + len(content)
            names = archive.namelist()
        train = sum(name.startswith("train/") for name in names)
        classes = {name.split("/")[1] for name in names}
        if train < MINIMUM * len(classes):
            raise UserError(f"--pack: {limit:,} bytes are too few for {MINIMUM} training images of each class.")
        partial.replace(target)
    print(f"{target}: {counted(images, 'image')}, {train:,} of them for training, {target.stat().st_size / 1e6:.1f} MB")


def encoded(source: Path, folder: Path) -> Iterator[tuple[str, bytes]]:
    """Names and files: the test images, then the training images of all classes in turn."""
    from PIL import Image

    from gradspike.config.compose import load_config
    from gradspike.training.build import build_data

    words = ["dataset=cifar10", "dataset.val_fraction=0", f"dataset.source={source}", f"data_dir={folder / 'data'}"]
    data = build_data(load_config(words))
    data.prepare_data()
    data.setup()
    samples = data.samples
    for split in ("test", "train"):
        indices = samples.indices(split)
        labels = np.asarray(samples.labels)[indices]
        in_turn = zip_longest(*(indices[labels == label] for label in range(len(samples.class_names))))
        for index in chain.from_iterable(in_turn):
            if index is None:
                continue
            file = io.BytesIO()
            picture = np.asarray(samples.inputs[index]).transpose(1, 2, 0)
            Image.fromarray(picture).save(file, "WEBP", lossless=True, quality=100, method=4)
            yield f"{split}/{samples.class_names[samples.labels[index]]}/{index:05d}.webp", file.getvalue()
