"""Preparing compressed pictures: each read and checked once, those larger than needed scaled down, all in one array."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gradspike.data.files.bad_file import BadFile
from gradspike.data.files.files import Files
from gradspike.data.pictures.encoded import EncodedPictures, decode_stored
from gradspike.data.pictures.pictures import PictureItem, channel_statistics, decode, described
from gradspike.data.prepared.cache import prepared
from gradspike.data.prepared.parts import Part, build_in_parts
from gradspike.data.source import Samples

if TYPE_CHECKING:
    from gradspike.data.pictures.source import PictureSource

VERSION = 1
PART_SIZE = 500
JPEG_QUALITY = 95
MEASURED = 5000
"""Training pictures, at most, of which normalize=standard measures mean and standard deviation."""


def load_encoded(source: PictureSource[Any]) -> Samples:
    """Open the compressed pictures of a source, preparing them first where needed."""
    config = source.config
    options = {"version": VERSION, "shorter_side": config.shorter_side}
    opened = source.open(f"{config.name}-encoded", options, partial(_build, source))
    pictures = EncodedPictures(
        opened.arrays["bytes"],
        np.concatenate([[0], np.cumsum(opened.arrays["lengths"])]).astype(np.int64),
        config.image_size,
        config.eval_shorter_side,
        config.augment.resized_crop,
    )
    samples = source.samples(opened, pictures, statistics=False)
    if config.normalize != "standard":
        return samples
    key = {"version": VERSION, "of": opened.folder.name, "val_fraction": config.val_fraction, "size": config.image_size}
    key["eval_shorter_side"] = config.eval_shorter_side
    facts = prepared(source.data_dir, f"{config.name}-statistics", key, partial(_measure, samples)).facts
    return replace(samples, mean=tuple(facts["mean"]), std=tuple(facts["std"]))


def _build(source: PictureSource[Any], files: Files, folder: Path) -> dict[str, Any]:
    listing = source.checked_listing(files)
    with listing.files.readable(folder) as readable:
        work = partial(read_encoded, files=readable, shorter_side=source.config.shorter_side)
        bad = build_in_parts(
            folder,
            listing.items,
            work,
            part_size=PART_SIZE,
            workers=source.prepare_workers,
            title=f"preparing {source.config.name}",
            on_bad_file=source.config.on_bad_file,
        )
    return source.facts(folder, listing, bad)


def _measure(samples: Samples, folder: Path) -> dict[str, Any]:
    """Mean and standard deviation per channel of training pictures as in evaluation, evenly chosen."""
    train = samples.indices("train")
    chosen = train[:: -(-len(train) // MEASURED)]
    mean, std = channel_statistics(samples.inputs, chosen, chunk=100)
    np.save(folder / "measured.npy", chosen)
    return {"mean": mean, "std": std}


def read_encoded(items: Sequence[PictureItem], *, files: Files, shorter_side: int) -> Part:
    """The compressed bytes of some pictures, their lengths, labels, splits and names; and the bad files.

    Every file is decoded once, so that none is found to be damaged while training.
    """
    contents: list[NDArray[np.uint8]] = []
    good: list[PictureItem] = []
    bad: list[BadFile] = []
    for item in items:
        try:
            contents.append(np.frombuffer(encode(files.read(item.entry), shorter_side), dtype=np.uint8))
            good.append(item)
        except OSError as error:
            bad.append(BadFile(files.shown(item.entry.name), f"cannot be read ({error.strerror or error})"))
        except ValueError as error:
            bad.append(BadFile(files.shown(item.entry.name), str(error)))
    arrays: dict[str, NDArray[Any]] = {
        "bytes": np.concatenate(contents) if contents else np.empty(0, dtype=np.uint8),
        "lengths": np.array([len(content) for content in contents], dtype=np.int64),
        **described(good),
    }
    return Part(arrays, tuple(bad))


def encode(content: bytes, shorter_side: int) -> bytes:
    """The file as it is kept: unchanged where it is RGB or grey, no larger than needed and readable by the decoder used
    while training; else a JPEG file.

    Larger pictures are scaled down (Lanczos) until the shorter side is `shorter_side`. Raises ValueError with a reason
    that can be shown.
    """

    picture = decode(content)
    if min(picture.size) <= shorter_side:
        plain = Image.open(io.BytesIO(content)).mode in ("RGB", "L")
        return content if plain and _decodable(content, picture.size) else _as_jpeg(picture)
    scale = shorter_side / min(picture.size)
    size = [max(round(side * scale), shorter_side) for side in picture.size]
    return _as_jpeg(picture.resize((size[0], size[1]), Image.Resampling.LANCZOS))


def _decodable(content: bytes, size: tuple[int, int]) -> bool:
    try:
        return tuple(decode_stored(np.frombuffer(content, dtype=np.uint8)).shape) == (3, size[1], size[0])
    except RuntimeError:
        return False


def _as_jpeg(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=JPEG_QUALITY)
    return file.getvalue()
