"""Lists the images of a data set: files, labels, splits, and unusable files."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from gradspike.data.files.bad_file import BadFile
from gradspike.data.files.by_class import SPLIT_FOLDERS, ClassListing, list_by_class
from gradspike.data.files.companions import left_out
from gradspike.data.files.containers import Entry
from gradspike.data.files.files import Files
from gradspike.data.files.unread import unread
from gradspike.data.pictures.decode import EXTENSIONS
from gradspike.data.prepared.parts import encode_names
from gradspike.data.source import SPLITS, Split
from gradspike.errors import UserError
from gradspike.exhausted import raise_if_exhausted
from gradspike.shown import counted, listed

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PictureItem:
    """An image to prepare: its file, its label, and its split (index into SPLITS)."""

    entry: Entry
    label: int
    split: int


@dataclass(frozen=True)
class PictureListing:
    """All images of a data set in order, the class names by label, and the unusable files."""

    files: Files
    items: tuple[PictureItem, ...]
    class_names: tuple[str, ...]
    bad: tuple[BadFile, ...]

    def left_out(self, files: Files) -> dict[str, int]:
        """Count the `files` behind this listing that are neither images of the data set nor bad files."""
        inside = self.files.root[len(files.root) :]
        used = {inside + item.entry.name for item in self.items}
        return left_out(files, used, {file.path for file in self.bad}, inside)


def converted(
    items: Sequence[PictureItem], files: Files, convert: Callable[[bytes], T], bad: list[BadFile]
) -> Iterator[tuple[PictureItem, T]]:
    """Yield each image with `convert(bytes)`; a file that raises OSError or ValueError is added to `bad` instead."""
    for item in items:
        try:
            result = convert(files.read(item.entry))
        except OSError as error:
            raise_if_exhausted(error)
            bad.append(BadFile(files.shown(item.entry.name), f"cannot be read ({error.strerror or error})"))
        except ValueError as error:
            bad.append(BadFile(files.shown(item.entry.name), str(error)))
        else:
            yield item, result


def described(items: Sequence[PictureItem]) -> dict[str, NDArray[np.generic]]:
    """The arrays stored besides the images, [n] each: labels int64, splits uint8, names in UTF-8."""
    return {
        "labels": np.array([item.label for item in items], dtype=np.int64),
        "splits": np.array([item.split for item in items], dtype=np.uint8),
        "names": encode_names(item.entry.name for item in items),
    }


def list_class_folders(
    files: Files,
    labels: Mapping[Split, Mapping[str, str]] | None = None,
    around_classes: Sequence[str] = (),
    test_may_lack_labels: bool = False,
) -> PictureListing:
    """List `split/class/name.ext`, with labels in the order of the sorted training class names.

    Without `test`, `val` is the test split, as in ImageNet; `test_may_lack_labels` leaves out a test folder without
    class folders, or with one called images. The other options are those of `list_by_class`. Raises UserError if train
    or test is missing, or if a class has no training images; a class without test images is among the bad files.
    """
    found = list_by_class(files, EXTENSIONS, labels=labels, around_classes=around_classes)
    splits = dict(found.splits)
    if test_may_lack_labels and splits.get("test", {}).keys() <= {"images"} - splits.get("train", {}).keys():
        splits.pop("test", None)
        unlabelled = tuple(found.files.shown(f"{folder}/") for folder in SPLIT_FOLDERS["test"])
        found = replace(found, bad=tuple(file for file in found.bad if not file.path.startswith(unlabelled)))
    if "val" in splits and "test" not in splits:
        log.info("%s has no labelled test folder: its val folder is used as the test split.", files.shown())
        splits["test"] = splits.pop("val")
    for split in ("train", "test"):
        if split not in splits:
            tops = sorted({entry.name.partition("/")[0] for entry in found.files.entries()})
            raise UserError(
                f"{found.files.shown()}: no images in {split}/<class>/. Expected train/<class>/name.png and "
                f"test/<class>/name.png ({', '.join(EXTENSIONS)}). Found: {listed(tops) or 'nothing'}."
                f"{_unlabelled(found)}{unread(found.files)}"
            )
    return assemble(found.files, splits, found.bad)


def _unlabelled(found: ClassListing) -> str:
    """A sentence, with a leading space, that counts the images directly in a split's folder; else empty."""
    flat = [
        entry.name
        for entry in found.files.entries()
        if entry.name.count("/") == 1 and entry.name.lower().endswith(EXTENSIONS)
    ]
    if not flat:
        return ""
    are = "is" if len(flat) == 1 else "are"
    return f" {counted(len(flat), 'image')} ({flat[0]}, ...) {are} in no class folder, so their labels are unknown."


def assemble(
    files: Files, splits: Mapping[Split, Mapping[str, Sequence[Entry]]], bad: Sequence[BadFile]
) -> PictureListing:
    """Label the classes by their sorted training names. Raises UserError for a class that is tested but not trained."""
    class_names = tuple(sorted(splits["train"]))
    labels = {name: label for label, name in enumerate(class_names)}
    items: list[PictureItem] = []
    problems = list(bad)
    for number, split in enumerate(SPLITS):
        classes = splits.get(split, {})
        untrained = sorted(classes.keys() - labels.keys())
        if untrained:
            raise UserError(
                f"{files.shown()}: {split} has classes that train does not have: {listed(untrained)}. "
                f"Remove them, or add training images. An example: {files.shown(classes[untrained[0]][0].name)}."
                f"{unread(files)}"
            )
        if classes:
            problems += [
                BadFile(files.shown(split), f"has no images of class {name}")
                for name in class_names
                if name not in classes
            ]
        items += [PictureItem(entry, labels[name], number) for name in sorted(classes) for entry in classes[name]]
    return PictureListing(files, tuple(items), class_names, tuple(problems))
