"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009): the official Python pickles, or images as `split/class/name.ext`.

`_read_batch` reads one pickle of the official download.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from typing_extensions import override

from gradspike.data.files.bad_file import BadFile
from gradspike.data.files.by_class import SPLIT_FOLDERS
from gradspike.data.files.companions import left_out
from gradspike.data.files.containers import Entry
from gradspike.data.files.download import download
from gradspike.data.files.files import ARCHIVES, Files
from gradspike.data.files.safe_pickle import load_pickle
from gradspike.data.options.base import DatasetConfig
from gradspike.data.options.pictures import Cifar10Config, Cifar100Config
from gradspike.data.pictures.decode import EXTENSIONS, fit
from gradspike.data.pictures.listing import PictureListing, list_class_folders
from gradspike.data.pictures.source import PictureSource
from gradspike.data.prepared.parts import Part, build_in_parts, encode_names, refuse_bad_files
from gradspike.data.source import SPLITS
from gradspike.errors import UserError
from gradspike.exhausted import raise_if_exhausted
from gradspike.shown import counted, listed

SIZE = 32
TRAIN, TEST = SPLITS.index("train"), SPLITS.index("test")
SPLIT_NAMES = {name for names in SPLIT_FOLDERS.values() for name in names}


@dataclass(frozen=True)
class Official:
    """The official download of CIFAR-10 or CIFAR-100: its pickles, their splits, and their keys."""

    title: str
    folder: str
    archive: str
    batches: tuple[tuple[str, int], ...]
    labels: str
    meta: str
    class_names: str
    torchvision: str
    """The torchvision class with the URL and checksum."""

    @property
    def names(self) -> set[str]:
        """The names of all pickles."""
        return {self.meta, *(name for name, _ in self.batches)}


OFFICIAL = {
    "cifar10": Official(
        title="CIFAR-10",
        folder="cifar-10-batches-py",
        archive="cifar-10-python.tar.gz",
        batches=(*((f"data_batch_{number}", TRAIN) for number in range(1, 6)), ("test_batch", TEST)),
        labels="labels",
        meta="batches.meta",
        class_names="label_names",
        torchvision="CIFAR10",
    ),
    "cifar100": Official(
        title="CIFAR-100",
        folder="cifar-100-python",
        archive="cifar-100-python.tar.gz",
        batches=(("train", TRAIN), ("test", TEST)),
        labels="fine_labels",
        meta="meta",
        class_names="fine_label_names",
        torchvision="CIFAR100",
    ),
}


class Cifar(PictureSource[Cifar10Config]):
    """CIFAR-10: images [3, 32, 32]. The official class order is alphabetical."""

    Config: ClassVar[type[DatasetConfig]] = Cifar10Config
    stored_size = SIZE

    def __init__(self, config: Cifar10Config, time_steps: int, data_dir: Path) -> None:
        super().__init__(config, time_steps, data_dir)
        name = config.name
        self.official = official = OFFICIAL[name]
        self.what = official.title  # type: ignore[misc]
        self.usual_names = (  # type: ignore[misc]
            official.folder,
            official.archive,
            name,
            *(f"{name}{ending}" for ending in ARCHIVES),
        )
        self.put = (  # type: ignore[misc]
            f"the official download {official.archive} (the Python version), packed or unpacked; or "
            f"train/<class>/*.png and test/<class>/*.png as {name}.zip, .tar or folder; or add dataset.download=true "
            "on a machine with network access"
        )

    @override
    def download(self) -> None:
        import torchvision.datasets

        facts = getattr(torchvision.datasets, self.official.torchvision)
        download(facts.url, facts.tgz_md5, self.data_dir, facts.filename)

    @override
    def listing(self, files: Files) -> PictureListing:
        return list_class_folders(files)

    @override
    def build(self, files: Files, folder: Path) -> dict[str, Any]:
        batches = _find_batches(files, self.official)
        if batches is None:
            _refuse_other_version(files, self.official)
            return super().build(files, folder)
        facts = self._build_from_pickles(batches, folder)
        inside = batches.root[len(files.root) :]
        used = {inside + name for name in self.official.names}
        return {**facts, "left_out": left_out(files, used, {path for path, _ in facts["bad"]}, inside)}

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


class Cifar100(Cifar):
    """CIFAR-100: images of the same shape in 100 classes."""

    Config: ClassVar[type[DatasetConfig]] = Cifar100Config


def read_batches(items: Sequence[tuple[Entry, int]], *, files: Files, labels_key: str, classes: int, size: int) -> Part:
    """Read pickles, given with their splits, into arrays."""
    parts, bad = [], []
    for entry, split in items:
        try:
            parts.append(_read_batch(files.read(entry), split, labels_key, classes, size))
        except OSError as error:
            raise_if_exhausted(error)
            bad.append(BadFile(files.shown(entry.name), f"cannot be read ({error.strerror or error})"))
        except ValueError as error:
            bad.append(BadFile(files.shown(entry.name), str(error)))
    names = parts[0].keys() if parts else ()
    return Part({name: np.concatenate([part[name] for part in parts]) for name in names}, tuple(bad))


def _read_batch(content: bytes, split: int, labels_key: str, classes: int, size: int) -> dict[str, Any]:
    """Read one pickle into arrays. Raises ValueError if it is not a valid CIFAR batch."""
    batch = _with_text_keys(load_pickle(content))
    if not isinstance(batch, dict) or not {"data", labels_key} <= batch.keys():
        raise ValueError(f"does not contain 'data' and '{labels_key}'")
    data, labels = batch["data"], np.asarray(batch[labels_key])
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3 * SIZE**2:
        found = f"{data.dtype} {data.shape}" if isinstance(data, np.ndarray) else type(data).__name__
        raise ValueError(f"'data' is {found} instead of uint8 [images, {3 * SIZE**2}]")
    names = batch.get("filenames", [f"{number:05d}" for number in range(len(data))])
    if labels.shape != (len(data),) or len(names) != len(data):
        labels_and_names = f"{counted(labels.size, 'label')} and {counted(len(names), 'name')}"
        raise ValueError(f"contains {counted(len(data), 'image')}, {labels_and_names}")
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"has labels of type {labels.dtype}; they must be whole numbers")
    outside = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(outside):
        raise ValueError(
            f"has {len(outside):,} of {len(labels):,} labels outside 0 to {classes - 1}; the first is "
            f"{labels[outside[0]]}, of image {outside[0]:,}"
        )
    pictures = data.reshape(-1, 3, SIZE, SIZE)
    if size != SIZE:
        from PIL import Image

        scaled = [fit(Image.fromarray(picture.transpose(1, 2, 0)), size) for picture in pictures]
        pictures = np.stack([np.asarray(picture).transpose(2, 0, 1) for picture in scaled])
    return {
        "inputs": pictures,
        "labels": labels.astype(np.int64),
        "splits": np.full(len(data), split, dtype=np.uint8),
        "names": encode_names(_text(name) for name in names),
    }


def _with_text_keys(content: Any) -> Any:
    """A pickle's dictionary with text as keys; Python 3 keeps bytes if it reads one with `encoding="bytes"`."""
    return {_text(key): value for key, value in content.items()} if isinstance(content, dict) else content


def _text(name: Any) -> str:
    if not isinstance(name, bytes):
        return str(name)
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError:
        return name.decode("latin1")


def _find_batches(files: Files, official: Official) -> Files | None:
    """The folder in `files` with the official pickles, or None if the samples are images in class folders.

    Raises UserError if there are several complete folders, or both pickles and images.
    """
    wanted = {name for name, _ in official.batches}
    found: dict[str, set[str]] = {}
    for entry in files.entries():
        folder, _, name = entry.name.rpartition("/")
        if name in wanted:
            found.setdefault(folder, set()).add(name)
    complete = sorted(folder for folder in found if found[folder] == wanted)
    pictures = next((entry.name for entry in files.entries() if _in_class_folder(entry)), None)
    if len(complete) > 1 or (complete and pictures):
        several = [f"{folder}/ (pickles)" if folder else "its pickles" for folder in complete]
        several += [f"{pictures} (images)"] if pictures else []
        raise UserError(
            f"{files.shown()} contains {official.title} more than once: {listed(several)}. Choose one with "
            "dataset.source (unpack an archive first)."
        )
    if complete or not found or pictures:
        return files.below(complete[0]) if complete else None
    return files.below(min(found, key=lambda folder: (-len(found[folder]), folder)))


def _refuse_other_version(files: Files, official: Official) -> None:
    """Raise UserError if there are no images, but files of a download other than `official`'s."""
    names = {entry.name.rpartition("/")[2] for entry in files.entries()}
    if any(_in_class_folder(entry) for entry in files.entries()):
        return
    for name, other in OFFICIAL.items():
        if other is not official and {batch for batch, _ in other.batches} <= names:
            raise UserError(f"{files.shown()} contains {other.title}, not {official.title}: use dataset={name}.")
    for version, ending in (("binary", ".bin"), ("MATLAB", ".mat")):
        if any(name + ending in names for name, _ in official.batches):
            raise UserError(
                f"{files.shown()} contains the {version} version of {official.title}. Download the Python version, "
                f"{official.archive}, or add dataset.download=true on a machine with network access."
            )


def _in_class_folder(entry: Entry) -> bool:
    """Whether a file is an image at `split/class/...` in any folder."""
    folders = entry.name.split("/")[:-1]
    return entry.name.lower().endswith(EXTENSIONS) and any(part in SPLIT_NAMES for part in folders[:-1])


def _class_names(files: Files, official: Official) -> tuple[str, ...]:
    entry = files.find(official.meta)
    if entry is None:
        raise UserError(f"{files.shown(official.meta)} is missing: it names the classes.")
    try:
        meta = _with_text_keys(load_pickle(files.read(entry)))
        names = tuple(_text(name) for name in meta[official.class_names])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(f"{files.shown(official.meta)} cannot be read ({error}).") from error
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise UserError(f"{files.shown(official.meta)} names a class twice: {listed(twice)}.")
    return names
