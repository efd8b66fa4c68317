"""Prepares images as uint8 pixels of one size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gradspike.data.files.bad_file import BadFile
from gradspike.data.files.files import Files
from gradspike.data.pictures.decode import decode, fit
from gradspike.data.pictures.listing import PictureItem, converted, described
from gradspike.data.prepared.parts import Part

PART_SIZE = 1000


def read_pictures(items: Sequence[PictureItem], *, files: Files, size: int, stored_size: int | None) -> Part:
    """Decode images into the arrays inputs (uint8 [n, 3, size, size]), labels, splits and names.

    stored_size: height and width that every file must have; None: any size.
    """

    def pixels(content: bytes) -> NDArray[np.uint8]:
        picture = decode(content)
        if stored_size is not None and picture.size != (stored_size, stored_size):
            raise ValueError(f"has {picture.width}x{picture.height} pixels instead of {stored_size}x{stored_size}")
        return np.asarray(fit(picture, size)).transpose(2, 0, 1)

    inputs = np.empty((len(items), 3, size, size), dtype=np.uint8)
    good: list[PictureItem] = []
    bad: list[BadFile] = []
    for item, picture in converted(items, files, pixels, bad):
        inputs[len(good)] = picture
        good.append(item)
    return Part({"inputs": inputs[: len(good)], **described(good)}, tuple(bad))


def channel_statistics(
    inputs: NDArray[np.uint8], indices: NDArray[np.int64], chunk: int = 2000
) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel of inputs / 255 (uint8 [N, C, H, W]) over some samples.

    Computed from integer histograms, reading `chunk` samples at a time in file order.
    """
    counts = np.zeros((inputs.shape[1], 256), dtype=np.int64)
    for start in range(0, len(indices), chunk):
        pixels = inputs[np.sort(indices[start : start + chunk])]
        for channel in range(inputs.shape[1]):
            counts[channel] += np.bincount(pixels[:, channel].ravel(), minlength=256)
    values = np.arange(256) / 255
    total = counts.sum(axis=1)
    mean = (counts * values).sum(axis=1) / total
    variance = (counts * (values - mean[:, None]) ** 2).sum(axis=1) / total
    return mean.tolist(), np.sqrt(variance).tolist()
