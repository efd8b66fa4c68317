"""Picture files to pixels: decoding, what becomes of other modes than RGB, and the way to a fixed size."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from gradspike.data.files.bad_file import BadFile
from gradspike.data.files.containers import Entry
from gradspike.data.files.files import Files
from gradspike.data.prepared.parts import Part, encode_names

FORMATS = ("PNG", "JPEG", "WEBP")
EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp")
PART_SIZE = 1000


@dataclass(frozen=True)
class PictureItem:
    """A picture to prepare: its file, its label, and its split (a position in SPLITS)."""

    entry: Entry
    label: int
    split: int


def decode(content: bytes) -> Image.Image:
    """A PNG, JPEG or WebP file as an RGB picture. Raises ValueError with a reason that can be shown.

    Grey becomes three equal channels, 16-bit grey keeps its upper 8 bits, a palette is looked up, CMYK is converted,
    an alpha channel is dropped, and of an animation the first frame is taken; as `PIL.Image.convert("RGB")` does (and
    with it torchvision's ImageFolder), but for 16 bits, which it would clip. An orientation tag is not applied.
    """
    if not content:
        raise ValueError("is empty (0 bytes)")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about palettes with transparency, and large pictures
            picture: Image.Image = Image.open(io.BytesIO(content), formats=FORMATS)
            picture.load()
            if picture.mode.startswith("I"):
                upper = (np.asarray(picture).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
                picture = Image.fromarray(upper)
            return picture.convert("RGB")
    except UnidentifiedImageError as error:
        raise ValueError("is not a PNG, JPEG or WebP picture") from error
    except Image.DecompressionBombError as error:
        raise ValueError("has too many pixels to be a picture of a data set") from error
    # Each decoder of the library has errors of its own for a damaged file (OSError, SyntaxError, EOFError, zlib.error).
    except Exception as error:
        raise ValueError(f"cannot be decoded ({str(error) or type(error).__name__})") from error


def fit(picture: Image.Image, size: int) -> Image.Image:
    """Bring the shorter side to `size` and cut out the middle square, as torchvision's Resize and CenterCrop do."""
    width, height = picture.size
    if min(width, height) != size:
        scaled = int(size * max(width, height) / min(width, height))
        width, height = (size, scaled) if width <= height else (scaled, size)
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - size) / 2.0), round((height - size) / 2.0)
    return picture if width == height else picture.crop((left, top, left + size, top + size))


def read_pictures(items: Sequence[PictureItem], *, files: Files, size: int, stored_size: int | None) -> Part:
    """The pixels of some pictures: inputs uint8 [n, 3, size, size], labels, splits, names; and the bad files.

    stored_size: height and width that every file of the set has; None: any size.
    """
    inputs = np.empty((len(items), 3, size, size), dtype=np.uint8)
    good: list[PictureItem] = []
    bad: list[BadFile] = []
    for item in items:
        try:
            picture = decode(files.read(item.entry))
            if stored_size is not None and picture.size != (stored_size, stored_size):
                raise ValueError(f"has {picture.width}x{picture.height} pixels instead of {stored_size}x{stored_size}")
        except OSError as error:
            bad.append(BadFile(files.shown(item.entry.name), f"cannot be read ({error.strerror or error})"))
        except ValueError as error:
            bad.append(BadFile(files.shown(item.entry.name), str(error)))
        else:
            inputs[len(good)] = np.asarray(fit(picture, size)).transpose(2, 0, 1)
            good.append(item)
    arrays = {"inputs": inputs[: len(good)], **described(good)}
    return Part(arrays, tuple(bad))


def described(items: Sequence[PictureItem]) -> dict[str, NDArray[np.generic]]:
    """What is stored of each picture besides its pixels: labels int64, splits uint8, names as UTF-8 bytes, [n] each."""
    return {
        "labels": np.array([item.label for item in items], dtype=np.int64),
        "splits": np.array([item.split for item in items], dtype=np.uint8),
        "names": encode_names(item.entry.name for item in items),
    }


def channel_statistics(
    inputs: NDArray[np.uint8], indices: NDArray[np.int64], chunk: int = 2000
) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel of inputs / 255 (uint8 [N, C, H, W]) over some samples, by whole numbers.

    Read in the order of the file, a chunk at a time.
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
