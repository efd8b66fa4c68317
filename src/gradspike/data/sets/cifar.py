"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009): the official Python pickles, or pictures as `split/class/name.ext`."""

from __future__ import annotations

import io
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from gradspike.data.files.bad_file import BadFile
from gradspike.data.files.containers import Entry
from gradspike.data.files.download import download
from gradspike.data.files.files import ARCHIVES, Files
from gradspike.data.options.base import DatasetConfig
from gradspike.data.options.pictures import Cifar10Config
from gradspike.data.pictures.pictures import fit
from gradspike.data.pictures.source import PictureListing, PictureSource, list_class_folders
from gradspike.data.prepared.parts import Part, build_in_parts, encode_names, refuse_bad_files
from gradspike.data.source import SPLITS, Samples
from gradspike.errors import ConfigError, UserError

SIZE = 32


@dataclass(frozen=True)
class Official:
    """How one of the two is published: its pickles (name, split), and the keys of labels and class names in them."""

    folder: str
    batches: tuple[tuple[str, int], ...]
    labels: str
    meta: str
    class_names: str
    dataset: str
    """torchvision's class, which knows where it lies and its checksum."""


TRAIN, TEST = SPLITS.index("train"), SPLITS.index("test")
OFFICIAL = {
    "cifar10": Official(
        "cifar-10-batches-py",
        (*((f"data_batch_{number}", TRAIN) for number in range(1, 6)), ("test_batch", TEST)),
        "labels",
        "batches.meta",
        "label_names",
        "CIFAR10",
    ),
    "cifar100": Official(
        "cifar-100-python", (("train", TRAIN), ("test", TEST)), "fine_labels", "meta", "fine_label_names", "CIFAR100"
    ),
}


class Cifar(PictureSource[Cifar10Config]):
    """Pictures [3, 32, 32]. The classes' official order is that of their names."""

    Config: ClassVar[type[DatasetConfig]] = Cifar10Config
    stored_size = SIZE

    def __init__(self, config: Cifar10Config, time_steps: int, data_dir: Path) -> None:
        super().__init__(config, time_steps, data_dir)
        name = config.name
        self.official = OFFICIAL[name]
        folder = self.official.folder
        archive = folder.replace("-batches-py", "-python") + ".tar.gz"
        self.what = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}[name]  # type: ignore[misc]
        self.usual_names = (folder, archive, name, *(f"{name}{ending}" for ending in ARCHIVES))  # type: ignore[misc]
        self.put = (  # type: ignore[misc]
            f"the official download {archive} (the python version), as it is or unpacked; or train/<class>/*.png and "
            f"test/<class>/*.png as {name}.zip, .tar or folder; or add dataset.download=true where there is a network"
        )

    def download(self) -> None:
        """Fetch the official archive."""
        import torchvision.datasets

        facts = getattr(torchvision.datasets, self.official.dataset)
        download(facts.url, facts.tgz_md5, self.data_dir, facts.filename)

    def listing(self, files: Files) -> PictureListing:
        """The pictures by their folders."""
        return list_class_folders(files)

    def load_encoded(self) -> Samples:
        """Refused: pictures this small are kept as pixels only."""
        raise ConfigError(f"dataset.storage=encoded: is for large pictures; {self.what} takes pixels")

    def _build(self, files: Files, folder: Path) -> dict[str, Any]:
        batches = _find_batches(files, self.official)
        return super()._build(files, folder) if batches is None else self._build_from_pickles(batches, folder)

    def _build_from_pickles(self, files: Files, folder: Path) -> dict[str, Any]:
        official = self.official
        bad = list(files.bad())
        present: list[tuple[Entry, int]] = []
        for name, split in official.batches:
            entry = files.find(name)
            if entry is not None:
                present.append((entry, split))
            else:
                bad.append(BadFile(files.shown(name), "is missing"))
        refuse_bad_files(bad, self.config.on_bad_file)
        with files.readable(folder) as readable:
            class_names = _class_names(readable, official)
            work = partial(
                read_batches,
                files=readable,
                labels_key=official.labels,
                classes=len(class_names),
                size=self.config.image_size,
            )
            bad += build_in_parts(
                folder,
                present,
                work,
                part_size=1,
                workers=self.prepare_workers,
                title=f"preparing {self.config.name}",
                on_bad_file=self.config.on_bad_file,
                bytes_per_item=60_000 // len(official.batches) * 3 * self.config.image_size**2,
            )
        return self.facts(folder, PictureListing(files, (), class_names, ()), bad)


def read_batches(items: Sequence[tuple[Entry, int]], *, files: Files, labels_key: str, classes: int, size: int) -> Part:
    """The pictures of some pickles with their splits."""
    parts, bad = [], []
    for entry, split in items:
        try:
            parts.append(_read_batch(files.read(entry), split, labels_key, classes, size))
        except (OSError, ValueError) as error:
            bad.append(BadFile(files.shown(entry.name), str(error)))
    names = parts[0].keys() if parts else ()
    return Part({name: np.concatenate([part[name] for part in parts]) for name in names}, tuple(bad))


def _read_batch(content: bytes, split: int, labels_key: str, classes: int, size: int) -> dict[str, Any]:
    """The arrays of one pickle. Raises ValueError where it is not what it should be."""
    batch = load_pickle(content)
    if not isinstance(batch, dict) or not {"data", labels_key} <= batch.keys():
        raise ValueError(f"does not hold 'data' and '{labels_key}'")
    data, labels = batch["data"], np.asarray(batch[labels_key])
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3 * SIZE**2:
        found = f"{data.dtype} {data.shape}" if isinstance(data, np.ndarray) else type(data).__name__
        raise ValueError(f"'data' is {found} instead of uint8 [pictures, {3 * SIZE**2}]")
    names = batch.get("filenames", [f"{number:05d}" for number in range(len(data))])
    if labels.shape != (len(data),) or len(names) != len(data):
        raise ValueError(f"holds {len(data)} pictures, {len(labels)} labels and {len(names)} names")
    if not np.issubdtype(labels.dtype, np.integer) or ((labels < 0) | (labels >= classes)).any():
        raise ValueError(f"has labels outside 0 to {classes - 1}")
    pictures = data.reshape(-1, 3, SIZE, SIZE)
    if size != SIZE:
        from PIL import Image

        scaled = [fit(Image.fromarray(picture.transpose(1, 2, 0)), size) for picture in pictures]
        pictures = np.stack([np.asarray(picture).transpose(2, 0, 1) for picture in scaled])
    return {
        "inputs": pictures,
        "labels": labels.astype(np.int64),
        "splits": np.full(len(data), split, dtype=np.uint8),
        "names": encode_names(str(name) for name in names),
    }


class _Unpickler(pickle.Unpickler):
    """Builds numbers, texts, lists, dicts and numpy arrays, and refuses everything that could run code."""

    def find_class(self, module: str, name: str) -> Any:
        """What a pickle may name: the makings of an array."""
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return np.zeros(0).__reduce__()[0]
        if module in ("numpy.core.numeric", "numpy._core.numeric") and name == "_frombuffer":
            return np.zeros(0).__reduce_ex__(5)[0]
        if (module, name) in (("numpy", "ndarray"), ("numpy", "dtype")):
            return getattr(np, name)
        if (module, name) == ("_codecs", "encode"):  # how Python 3 writes bytes in old protocols
            return _encode
        raise pickle.UnpicklingError(f"names {module}.{name}, which has no place in a data file")


def _encode(text: str, encoding: str = "latin1") -> bytes:
    return text.encode(encoding)


def load_pickle(content: bytes) -> Any:
    """A pickle of plain values and arrays. Raises ValueError for any other, and for a damaged one."""
    try:
        return _Unpickler(io.BytesIO(content), encoding="latin1").load()
    except Exception as error:  # a damaged pickle can fail in any operation
        raise ValueError(f"cannot be unpickled ({str(error) or type(error).__name__})") from error


def _find_batches(files: Files, official: Official) -> Files | None:
    """The folder of the official pickles inside `files`, if they are there: where most of them lie together."""
    wanted = {name for name, _ in official.batches} | {official.meta}
    folders: dict[str, int] = {}
    for entry in files.entries():
        folder, _, name = entry.name.rpartition("/")
        if name in wanted:
            folders[folder] = folders.get(folder, 0) + 1
    best = max(folders, key=lambda folder: (folders[folder], folder), default=None)
    return None if best is None else files.below(best)


def _class_names(files: Files, official: Official) -> tuple[str, ...]:
    entry = files.find(official.meta)
    if entry is None:
        raise UserError(f"{files.shown(official.meta)} is missing: it names the classes.")
    try:
        meta = load_pickle(files.read(entry))
        return tuple(str(name) for name in meta[official.class_names])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(f"{files.shown(official.meta)}: cannot be used ({error}).") from error
