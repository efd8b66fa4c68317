"""Small data sets in the usual layouts, written by hand, so that their contents are known."""

from __future__ import annotations

import io
import pickle
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from helpers.es_imagenet_samples import es_imagenet_source
from helpers.event_samples import EVENT_SOURCES
from helpers.spike_samples import spike_source

CLASSES = ("ant", "bee", "cat")
Options = dict[str, Any]


def pixels(number: int, size: int = 32) -> np.ndarray:
    """An image [size, size, 3] of noise that belongs to `number`."""
    return np.random.default_rng(number).integers(0, 256, (size, size, 3), dtype=np.uint8)


def encoded(array: np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    """An image as the bytes of a file."""
    file = io.BytesIO()
    Image.fromarray(array).save(file, kind, **options)
    return file.getvalue()


def write_class_folders(
    folder: Path,
    size: int = 32,
    classes: Sequence[str] = CLASSES,
    counts: dict[str, int] | None = None,
) -> dict[str, np.ndarray]:
    """Write split/class/name.png, `counts` of each class in each split. Returns the pixels by name."""
    written = {}
    for split, count in (counts or {"train": 4, "test": 2}).items():
        for name in classes:
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                array = pixels(len(written), size)
                path = f"{split}/{name}/{number:03d}.png"
                (folder / path).write_bytes(encoded(array))
                written[path] = array
    return written


def pack(folder: Path, archive: Path, top: str = "") -> Path:
    """Put all files of a folder into a zip or a tar file (by its ending), below `top`."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as file:
            for path in files:
                file.write(path, top + str(path.relative_to(folder)))
    else:
        with tarfile.open(archive, "w:gz" if archive.suffix in (".gz", ".tgz") else "w") as file:
            for path in files:
                file.add(path, top + str(path.relative_to(folder)))
    return archive


def write_cifar_pickles(folder: Path, name: str = "cifar10", count: int = 4, classes: int = 3) -> dict[str, np.ndarray]:
    """The official layout with `count` images in each batch. Returns the rows [3072] by name."""
    written = {}
    folder.mkdir(parents=True)
    hundred = name == "cifar100"
    batches = ("train", "test") if hundred else (*(f"data_batch_{n}" for n in range(1, 6)), "test_batch")
    label_key, meta, names_key = (
        ("fine_labels", "meta", "fine_label_names") if hundred else ("labels", "batches.meta", "label_names")
    )
    for number, batch in enumerate(batches):
        rows = np.random.default_rng(number).integers(0, 256, (count, 3072), dtype=np.uint8)
        names = [f"{batch}_{row}.png" for row in range(count)]
        written |= dict(zip(names, rows, strict=True))
        content = {"data": rows, label_key: [row % classes for row in range(count)], "filenames": names}
        (folder / batch).write_bytes(pickle.dumps(content, protocol=2))
    (folder / meta).write_bytes(pickle.dumps({names_key: [f"class{label}" for label in range(classes)]}, protocol=2))
    return written


def write_tiny_imagenet(folder: Path, train: int = 4, val: int = 2) -> dict[str, np.ndarray]:
    """The official layout of Tiny-ImageNet with three classes. Returns the pixels by name."""
    wnids = ("n03000000", "n01000000", "n02000000")
    written: dict[str, np.ndarray] = {}
    annotations = []

    def write(path: str) -> None:
        array = pixels(len(written), 64)
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(encoded(array, "PNG"))
        written[path] = array

    for wnid in wnids:
        for number in range(train):
            write(f"train/{wnid}/images/{wnid}_{number}.png")
        (folder / f"train/{wnid}/{wnid}_boxes.txt").write_text("")
        for _ in range(val):
            name = f"val_{len(annotations)}.png"
            write(f"val/images/{name}")
            annotations.append(f"{name}\t{wnid}\t0\t0\t62\t62\n")
    (folder / "wnids.txt").write_text("\n".join(wnids))
    (folder / "words.txt").write_text("n01000000\tant, pismire\nn09000000\tsomething else\n")
    (folder / "val" / "val_annotations.txt").write_text("".join(annotations))
    (folder / "test" / "images").mkdir(parents=True)
    (folder / "test" / "images" / "test_0.png").write_bytes(encoded(pixels(0, 64)))
    return written


def _cifar(folder: Path) -> Options:
    write_class_folders(folder / "files")
    return {"source": str(folder / "files"), "classes": 3}


def _tiny_imagenet(folder: Path) -> Options:
    write_tiny_imagenet(folder / "files")
    return {"source": str(folder / "files"), "classes": 3}


def _image_folder(folder: Path) -> Options:
    return _cifar(folder) | {"image_size": 16}


def _imagenet(folder: Path) -> Options:
    write_class_folders(folder / "files", size=40, classes=("n01", "n02", "n03"), counts={"train": 4, "val": 2})
    sizes = {"image_size": 32, "shorter_side": 36, "eval_shorter_side": 34}
    return {"source": str(folder / "files"), "classes": 3, **sizes}


SOURCES: dict[str, Callable[[Path], Options]] = {
    "cifar10": _cifar,
    "cifar100": _cifar,
    "tiny_imagenet": _tiny_imagenet,
    "image_folder": _image_folder,
    "imagenet": _imagenet,
    **EVENT_SOURCES,
    "es_imagenet": es_imagenet_source,
    "shd": spike_source("shd"),
    "ssc": spike_source("ssc"),
}
"""By the name of an image set: writes a small source of it into a folder and returns the options that go with it."""

ABOUT_FILES: Options = {"image_size": 32, "classes": 3}
"""Options that users must set for their own files (??? in the YAML)."""


def source_options(name: str, folder: Path) -> Options:
    """The options that make the data set `name` small, its files written where it needs some."""
    from helpers.event_samples import EVENT_SOURCES

    folder.mkdir(exist_ok=True)
    write = (SOURCES | EVENT_SOURCES).get(name)
    return {} if write is None else write(folder)
