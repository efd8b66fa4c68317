"""What the data sets of picture files share: from the files as they are found to prepared pixels and their splits."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from gradspike.data.files.bad_file import BadFile
from gradspike.data.files.containers import Entry
from gradspike.data.files.files import Files, MissingSourceError, listing_by_class
from gradspike.data.files.fingerprint import fingerprint
from gradspike.data.files.source import FileSource
from gradspike.data.options.pictures import PictureFilesConfig
from gradspike.data.pictures.pictures import EXTENSIONS, PART_SIZE, PictureItem, channel_statistics, read_pictures
from gradspike.data.prepared.cache import Prepared, find_prepared, prepared
from gradspike.data.prepared.parts import Names, build_in_parts, refuse_bad_files
from gradspike.data.source import SPLITS, Samples, Split, hold_out
from gradspike.errors import UserError

log = logging.getLogger(__name__)

VERSION = 1
"""Of everything here and in `pictures` that shapes the prepared pixels: a change needs a new one."""
SPLIT_VERSION = 1
SPLIT_SEED = 2009

ConfigT = TypeVar("ConfigT", bound=PictureFilesConfig)


@dataclass(frozen=True)
class PictureListing:
    """All pictures of a data set in their order, the classes by label, and what could not be placed."""

    files: Files
    items: tuple[PictureItem, ...]
    class_names: tuple[str, ...]
    bad: tuple[BadFile, ...]


class PictureSource(FileSource[ConfigT]):
    """A data set of picture files. A subclass says where they lie and what their names mean."""

    stored_size: ClassVar[int | None] = None
    """Height and width that every picture of the set has; None: any."""

    @abstractmethod
    def listing(self, files: Files) -> PictureListing:
        """Find the pictures and their labels. Raises UserError where nothing of that kind is there."""

    def load(self) -> Samples:
        """Open the prepared pictures, preparing them first where needed."""
        if self.config.storage == "encoded":
            return self.load_encoded()
        opened = self.open(self.config.name, {"version": VERSION, "image_size": self.config.image_size}, self._build)
        return self.samples(opened)

    def load_encoded(self) -> Samples:
        """Open the pictures as compressed files, for a set that is decoded while training."""
        from gradspike.data.pictures.encoded_source import load_encoded

        return load_encoded(self)

    def open(self, name: str, options: Mapping[str, Any], build: Any) -> Prepared:
        """The prepared set that belongs to `options` and the files: found, or built by `build(files, folder)`.

        A set that is prepared already is opened without its files too, once they have been deleted.
        """
        key = dict(options)
        try:
            files = self.files()
        except MissingSourceError:
            alone = find_prepared(self.data_dir, name, {**key, "source": None})
            if alone is None:
                raise
            log.info("The files of '%s' are gone; what was prepared from them is used: %s", name, alone.folder)
            opened = alone
        else:
            key["source"] = fingerprint(files, self.data_dir, refresh=self.refresh)
            opened = prepared(self.data_dir, name, key, partial(build, files))
        refuse_bad_files([BadFile(*file) for file in opened.facts["bad"]], self.config.on_bad_file)
        self.check_classes(opened.facts["class_names"], opened.facts["source"])
        return opened

    def _build(self, files: Files, folder: Path) -> dict[str, Any]:
        listing = self.checked_listing(files)
        with listing.files.readable(folder) as readable:
            work = partial(read_pictures, files=readable, size=self.config.image_size, stored_size=self.stored_size)
            bad = build_in_parts(
                folder,
                listing.items,
                work,
                part_size=PART_SIZE,
                workers=self.prepare_workers,
                title=f"preparing {self.config.name}",
                on_bad_file=self.config.on_bad_file,
                bytes_per_item=3 * self.config.image_size**2,
            )
        return self.facts(folder, listing, bad)

    def checked_listing(self, files: Files) -> PictureListing:
        """The listing, once its classes are right and its bad files are refused or skipped."""
        listing = self.listing(files)
        self.check_classes(listing.class_names, files.shown())
        refuse_bad_files(listing.bad, self.config.on_bad_file)
        return listing

    def facts(self, folder: Path, listing: PictureListing, bad: Sequence[BadFile]) -> dict[str, Any]:
        """What meta.json says of a set whose arrays `labels` and `splits` lie in `folder`. Raises UserError where a
        class has no training picture.
        """
        labels, splits = np.load(folder / "labels.npy"), np.load(folder / "splits.npy")
        counts = np.zeros((len(listing.class_names), len(SPLITS)), dtype=np.int64)
        np.add.at(counts, (labels, splits), 1)
        empty = [name for name, of_class in zip(listing.class_names, counts, strict=True) if of_class[0] == 0]
        if empty:
            raise UserError(f"{listing.files.shown()}: no training picture of class {', '.join(empty)} can be used.")
        import PIL

        return {
            "source": listing.files.shown(),
            "class_names": list(listing.class_names),
            "samples": dict(zip(SPLITS, counts.sum(axis=0).tolist(), strict=True)),
            "samples_by_class": counts.tolist(),
            "bad": [[file.path, file.problem] for file in (*listing.bad, *bad)],
            "pillow": PIL.__version__,
        }

    def samples(self, opened: Prepared, inputs: Any = None, statistics: bool = True) -> Samples:
        """The samples of a prepared set, with validation held out where it has none of its own, and their statistics.

        inputs: what to index for pictures; None: the stored pixels.
        """
        arrays, facts = opened.arrays, opened.facts
        key = {
            "version": SPLIT_VERSION,
            "of": opened.folder.name,
            "val_fraction": self.config.val_fraction,
            "statistics": statistics,
        }
        build = partial(self._divide, opened, statistics)
        divided = prepared(self.data_dir, f"{self.config.name}-split", key, build, level=logging.DEBUG)
        return Samples(
            arrays["inputs"] if inputs is None else inputs,
            arrays["labels"],
            divided.arrays["splits"],
            mean=tuple(divided.facts["mean"]),
            std=tuple(divided.facts["std"]),
            class_names=tuple(facts["class_names"]),
            names=Names(arrays["names"]),
        )

    def _divide(self, opened: Prepared, statistics: bool, folder: Path) -> dict[str, Any]:
        labels: NDArray[np.int64] = np.asarray(opened.arrays["labels"])
        splits = np.asarray(opened.arrays["splits"])
        if opened.facts["samples"]["val"] == 0:
            splits = hold_out(labels, splits, self.config.val_fraction, SPLIT_SEED)
        np.save(folder / "splits.npy", splits)
        mean: list[float] = []
        std: list[float] = []
        if statistics:
            mean, std = channel_statistics(opened.arrays["inputs"], np.flatnonzero(splits == 0).astype(np.int64))
        samples = {split: int(np.count_nonzero(splits == number)) for number, split in enumerate(SPLITS)}
        return {"samples": samples, "mean": mean, "std": std}


def list_class_folders(files: Files) -> PictureListing:
    """Pictures as `split/class/name.ext`. Labels follow the sorted names of the training classes.

    A `val` beside no `test` is the test split, as in ImageNet. Raises UserError where train or test are missing, and
    for a class that has pictures to test but none to train on; one without test pictures is among the bad files.
    """
    found = listing_by_class(files, EXTENSIONS)
    splits = dict(found.splits)
    if "val" in splits and "test" not in splits:
        log.info("%s has no folder test: val is the test split.", files.shown())
        splits["test"] = splits.pop("val")
    for split in ("train", "test"):
        if split not in splits:
            tops = sorted({entry.name.partition("/")[0] for entry in found.files.entries()})
            raise UserError(
                f"{found.files.shown()}: there are no pictures in {split}/<class>/. Expected: train/<class>/name.png, "
                f"test/<class>/name.png ({', '.join(EXTENSIONS)}). Found: {', '.join(tops[:8]) or 'nothing'}"
                + (", ..." if len(tops) > 8 else "")
            )
    return assemble(found.files, splits, found.bad)


def assemble(
    files: Files, splits: Mapping[Split, Mapping[str, Sequence[Entry]]], bad: Sequence[BadFile]
) -> PictureListing:
    """Give labels by the sorted names of the training classes, and see that the other splits agree with them."""
    class_names = tuple(sorted(splits["train"]))
    labels = {name: label for label, name in enumerate(class_names)}
    items: list[PictureItem] = []
    problems = list(bad)
    for number, split in enumerate(SPLITS):
        classes = splits.get(split, {})
        unknown = sorted(classes.keys() - labels.keys())
        if unknown:
            raise UserError(
                f"{files.shown()}: {split} has classes that train does not have: {', '.join(unknown[:10])}. "
                f"Their pictures, as {files.shown(classes[unknown[0]][0].name)}, could not be learnt."
            )
        if classes:
            problems += [
                BadFile(files.shown(split), f"has no pictures of class {name}")
                for name in class_names
                if name not in classes
            ]
        items += [PictureItem(entry, labels[name], number) for name in sorted(classes) for entry in classes[name]]
    return PictureListing(files, tuple(items), class_names, tuple(problems))
