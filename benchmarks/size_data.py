"""Sets of a million images and 100,000 recordings for `size.py`."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gradspike.data.datamodule import DataModule
from gradspike.data.events.source import EventSource
from gradspike.data.files.files import Files
from gradspike.data.options.base import FilesConfig
from gradspike.data.options.events import EventFolderConfig
from gradspike.data.options.pictures import ImageFolderConfig
from gradspike.data.pictures import pixels
from gradspike.data.pictures.listing import list_class_folders
from gradspike.data.registry import DATASETS
from gradspike.data.source import Source
from size_part import Part

BATCH = 256


def classes_of(part: str, count: int) -> int:
    """The number of classes of `count` samples."""
    return min(100 if part == "events" else 1000, count // 4)


def _names(part: str, count: int, ending: str) -> Iterator[str]:
    """`split/class/name` of each sample; every class has test samples, 2 % in all."""
    classes = classes_of(part, count)
    for index in range(count):
        split = "train" if index // classes % 50 else "test"
        yield f"{split}/class_{index % classes:04d}/{index:07d}{ending}"


def _pictures() -> list[bytes]:
    """PNG files of 8x8 random pixels."""
    random = np.random.default_rng(0)
    found = []
    for _ in range(256):
        file = io.BytesIO()
        Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(file, "PNG")
        found.append(file.getvalue())
    return found


def _recordings() -> list[bytes]:
    """Files of N-MNIST's format with 300 random events of 34x34 pixels in 100 ms."""
    random = np.random.default_rng(0)
    found = []
    for _ in range(256):
        t = np.sort(random.integers(0, 100_000, 300))
        columns = [*random.integers(0, 34, (2, 300)), random.integers(0, 2, 300) << 7 | t >> 16, t >> 8 & 255, t & 255]
        found.append(np.stack(columns, axis=1).astype(np.uint8).tobytes())
    return found


def make_folders(part: str, contents: Callable[[], list[bytes]], ending: str, folder: Path, count: int) -> None:
    """Write files in class folders."""
    files = contents()
    made: set[str] = set()
    for index, name in enumerate(_names(part, count, ending)):
        path = f"{folder}/{part}/{name}"
        below = os.path.dirname(path)
        if below not in made:
            os.makedirs(below)
            made.add(below)
        with open(path, "wb") as file:
            file.write(files[index % len(files)])


def make_zip(folder: Path, count: int) -> None:
    """Write a zip file with a folder around everything, as most have."""
    files = _pictures()
    with zipfile.ZipFile(folder / "zip", "w") as archive:
        for index, name in enumerate(_names("zip", count, ".png")):
            archive.writestr(f"pictures/{name}", files[index % len(files)])


def make_tar(folder: Path, count: int) -> None:
    """Write a tar file with a folder around everything."""
    files = _pictures()
    with tarfile.open(folder / "tar", "w", encoding="utf-8") as archive:
        for index, name in enumerate(_names("tar", count, ".png")):
            info = tarfile.TarInfo(f"pictures/{name}")
            info.size = len(files[index % len(files)])
            archive.addfile(info, io.BytesIO(files[index % len(files)]))
            archive.members.clear()  # type: ignore[attr-defined]


def _config(part: str, folder: Path, count: int) -> FilesConfig:
    options: dict[str, Any] = {"source": str(folder / part), "classes": classes_of(part, count), "batch_size": BATCH}
    if part == "events":
        return EventFolderConfig(**options, image_size=17, sensor_size=34)
    return ImageFolderConfig(**options, image_size=8)


def _source(part: str, folder: Path, count: int) -> Source[Any]:
    (folder / "data").mkdir(exist_ok=True)
    source: Source[Any] = DATASETS.build(Source, _config(part, folder, count), 4, folder / "data")
    source.prepare_workers = 2
    return source


def list_samples(part: str, folder: Path, count: int) -> None:
    """List the files with their classes."""
    files = Files.open(folder / part)
    source = _source(part, folder, count)
    if isinstance(source, EventSource):
        assert len(source.list_recordings([files]).clips) == count
    else:
        assert len(list_class_folders(files).items) == count


def prepare(part: str, folder: Path, count: int) -> None:
    """Prepare the set, or continue."""
    assert len(_source(part, folder, count).checked().labels) == count


def open_prepared(part: str, folder: Path, count: int) -> None:
    """Open the prepared set, and compute the digest that a run records."""
    _source(part, folder, count).checked().digest()


def one_epoch(part: str, folder: Path, count: int) -> None:
    """Read all batches of an epoch in training order."""
    data = DataModule(_config(part, folder, count), 4, 0, folder / "data")
    data.setup()
    seen = sum(len(batch["label"]) for batch in data.train_dataloader())
    assert seen == len(data.samples.indices("train")) // BATCH * BATCH


def _data(part: str, full: int, make: Callable[[Path, int], None]) -> Part:
    steps = {
        "list": list_samples,
        "prepare half, killed": prepare,
        "prepare the rest": prepare,
        "open": open_prepared,
        "one epoch": one_epoch,
    }
    part_size = 256 if part == "events" else pixels.PART_SIZE
    return Part(full, make, {name: partial(step, part) for name, step in steps.items()}, part_size)


PARTS: dict[str, Part] = {
    "images": _data("images", 1_300_000, partial(make_folders, "images", _pictures, ".png")),
    "zip": _data("zip", 1_300_000, make_zip),
    "tar": _data("tar", 1_300_000, make_tar),
    "events": _data("events", 100_000, partial(make_folders, "events", _recordings, ".bin")),
}
