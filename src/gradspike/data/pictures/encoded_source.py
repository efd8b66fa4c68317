"""The base class of data sets of large images, stored as pixels or compressed (`dataset.storage`).

Each file is read and checked once, images larger than needed are scaled down, and all bytes go into one array.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from typing_extensions import override

from gradspike.data.files.bad_file import BadFile
from gradspike.data.files.files import Files
from gradspike.data.options.pictures import ImageNetConfig
from gradspike.data.pictures.decode import check_shape, decode
from gradspike.data.pictures.listing import PictureItem, converted, described
from gradspike.data.pictures.pixels import channel_statistics
from gradspike.data.pictures.source import PictureSource
from gradspike.data.prepared.cache import prepared
from gradspike.data.prepared.parts import Part
from gradspike.data.source import Samples

VERSION = 1
STATISTICS_VERSION = 2
PART_SIZE = 500
JPEG_QUALITY = 95
DECODERS_DIFFER = 2.0
"""Largest mean difference, in 8-bit levels, between two decoders' pixels of a lossy file."""
MEASURED = 5000
"""Largest number of training images to measure for normalize=standard."""

ConfigT = TypeVar("ConfigT", bound=ImageNetConfig)


class LargePictureSource(PictureSource[ConfigT]):
    """A data set of image files that may be stored compressed."""

    @override
    def load(self) -> Samples:
        return self._load_encoded() if self.config.storage == "encoded" else super().load()

    def _load_encoded(self) -> Samples:
        config = self.config
        options = {"version": VERSION, "shorter_side": config.shorter_side}
        opened = self.open_prepared(f"{config.name}-encoded", options, self._build_encoded)
        from gradspike.data.pictures.encoded import EncodedPictures, EncodedSamples  # torch, only once files are there

        pictures = EncodedPictures(
            opened.arrays["bytes"],
            np.concatenate([[0], np.cumsum(opened.arrays["lengths"])]).astype(np.int64),
            config.image_size,
            config.eval_shorter_side,
            config.augment.resized_crop,
        )
        samples = self.samples(opened, pictures, statistics=False, kind=EncodedSamples)
        if config.normalize != "standard":
            return samples
        key = {
            "version": STATISTICS_VERSION,
            "of": opened.folder.name,
            "val_fraction": config.val_fraction,
            "size": config.image_size,
            "eval_shorter_side": config.eval_shorter_side,
        }
        facts = prepared(self.data_dir, f"{config.name}-statistics", key, partial(_measure, samples)).facts
        return replace(samples, mean=tuple(facts["mean"]), std=self.usable_std(facts["std"]))

    def _build_encoded(self, files: Files, folder: Path) -> dict[str, Any]:
        work = partial(read_encoded, shorter_side=self.config.shorter_side)
        return self.build_listed(files, folder, work, PART_SIZE)


def _measure(samples: Samples, folder: Path) -> dict[str, Any]:
    """Mean and standard deviation per channel of evenly spaced training images, cropped as in evaluation."""
    train = samples.indices("train")
    chosen = train[:: -(-len(train) // MEASURED)]
    mean, std = channel_statistics(samples.inputs, chosen, chunk=100)
    np.save(folder / "measured.npy", chosen)
    return {"mean": mean, "std": std}


def read_encoded(items: Sequence[PictureItem], *, files: Files, shorter_side: int) -> Part:
    """Read images into the arrays bytes, lengths, labels, splits and names.

    Every file is decoded once, so damaged files are found now and not during training.
    """
    contents: list[NDArray[np.uint8]] = []
    good: list[PictureItem] = []
    bad: list[BadFile] = []
    for item, content in converted(items, files, partial(encode, shorter_side=shorter_side), bad):
        contents.append(np.frombuffer(content, dtype=np.uint8))
        good.append(item)
    arrays: dict[str, NDArray[Any]] = {
        "bytes": np.concatenate(contents) if contents else np.empty(0, dtype=np.uint8),
        "lengths": np.array([len(content) for content in contents], dtype=np.int64),
        **described(good),
    }
    return Part(arrays, tuple(bad))


def encode(content: bytes, shorter_side: int) -> bytes:
    """The bytes to store for an image file. Raises ValueError with a reason to show to the user.

    RGB and grey files that are small enough are kept unchanged, if the decoder used in training gives the same pixels.
    All others become JPEG, scaled down (Lanczos) if their shorter side is longer than `shorter_side`.
    """
    picture = decode(content)
    check_shape(picture, shorter_side)
    if min(picture.size) <= shorter_side:
        stored = Image.open(io.BytesIO(content))
        keep = stored.mode in ("RGB", "L") and _agrees(content, picture, exactly=stored.format == "PNG")
        return content if keep else _as_jpeg(picture)
    scale = shorter_side / min(picture.size)
    size = [max(round(side * scale), shorter_side) for side in picture.size]
    return _as_jpeg(picture.resize((size[0], size[1]), Image.Resampling.LANCZOS))


def _agrees(content: bytes, picture: Image.Image, exactly: bool) -> bool:
    """Whether the decoder used in training gives the pixels of `picture`."""
    from gradspike.data.pictures.encoded import decode_stored

    expected = np.asarray(picture).transpose(2, 0, 1)
    try:
        found = decode_stored(np.frombuffer(content, dtype=np.uint8)).numpy()
    except RuntimeError:
        return False
    if found.shape != expected.shape:
        return False
    if exactly:
        return np.array_equal(found, expected)
    return bool(np.abs(found.astype(np.int16) - expected).mean() <= DECODERS_DIFFER)


def _as_jpeg(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=JPEG_QUALITY)
    return file.getvalue()
