"""Groups files into splits and classes by folder: `split/class/name.ext`."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from gradspike.data.files.bad_file import BadFile
from gradspike.data.files.companions import is_companion
from gradspike.data.files.containers import Entry
from gradspike.data.files.files import Files
from gradspike.data.files.names import class_name
from gradspike.data.source import SPLITS, Split
from gradspike.errors import UserError
from gradspike.shown import counted, listed


def _cases(*names: str) -> tuple[str, ...]:
    return tuple(change(name) for name in names for change in (str.lower, str.capitalize, str.upper))


SPLIT_FOLDERS: Mapping[Split, tuple[str, ...]] = {
    "train": _cases("train", "training"),
    "val": _cases("val", "valid", "validation"),
    "test": _cases("test", "testing"),
}


PART = re.compile(r"(.+)\.X(\d*)", re.ASCII)
"""A folder that holds a part of a split: train.X1 to train.X4 and val.X of Kaggle's ImageNet-100."""


def split_folder(files: Files, split: Split, extensions: Sequence[str]) -> str:
    """The top folder of `files` with the samples of a split, such as `Validation`; the usual name if there is none."""
    tops = _tops(files, extensions)
    return next((name for name in _with_parts(SPLIT_FOLDERS, tops)[split] if name in tops), SPLIT_FOLDERS[split][0])


@dataclass(frozen=True)
class ClassListing:
    """The files of each split and class, both sorted, and the bad files."""

    files: Files
    splits: dict[Split, dict[str, tuple[Entry, ...]]]
    bad: tuple[BadFile, ...]

    def class_names(self) -> tuple[str, ...]:
        """The classes of all splits, sorted."""
        return tuple(sorted({name for classes in self.splits.values() for name in classes}))


def samples_root(
    files: Files, extensions: Sequence[str], folders: Mapping[Split, Sequence[str]] = SPLIT_FOLDERS
) -> Files:
    """The files in the folder that contains the split folders with samples.

    Raises UserError if there are several such folders and none is the top folder.
    """
    inner = {entry.name.rpartition("/")[0] for entry in files.entries()}
    parts_too = _with_parts(folders, {name for path in inner for name in path.split("/")})
    wanted = {name for names in parts_too.values() for name in names}
    files = files.within_single_folder(*wanted)
    roots = set()
    for entry in files.entries():
        parts = entry.name.split("/")
        place = next((place for place, part in enumerate(parts[:-1]) if part in wanted), None)
        if place is not None and entry.name.lower().endswith(tuple(extensions)):
            roots.add("/".join(parts[:place]))
    if "" in roots or not roots:
        return files
    if len(roots) > 1:
        raise UserError(
            f"{files.shown()} contains several data sets: {listed(sorted(roots))}. Choose one with "
            "dataset.source (unpack an archive first)."
        )
    return files.below(roots.pop())


def list_by_class(
    files: Files,
    extensions: Sequence[str],
    folders: Mapping[Split, Sequence[str]] = SPLIT_FOLDERS,
    labels: Mapping[Split, Mapping[str, str]] | None = None,
    around_classes: Sequence[str] = (),
) -> ClassListing:
    """List `split/class/name.ext`. Extra folders are allowed around the splits and between class and name.

    extensions: lower case, with the dot. Files outside the split folders and known companions in them (README,
    annotations; see `companions`) are left out. Parts of a split (`PART`) are joined. Any other file in a split is
    a bad file if it has a different extension, or if it is in no class folder and `labels` has no class for its name.
    around_classes: folders allowed between a split and its classes. Missing splits are not in the result.
    """
    files = samples_root(files, extensions, folders)
    folders = _with_parts(folders, _tops(files, extensions))
    _refuse_two_names(files, extensions, folders)
    split_of = {name: split for split, wanted in folders.items() for name in wanted}
    found: dict[Split, dict[str, list[Entry]]] = {}
    bad = list(files.bad())
    for entry in files.entries():
        top, *inner = entry.name.split("/")
        if top not in split_of or not inner or is_companion(inner[-1], extensions):
            continue
        if inner[0] in around_classes and len(inner) > 2:
            inner = inner[1:]
        known = (labels or {}).get(split_of[top], {})
        if len(inner) == 1 and inner[0] in known:
            found.setdefault(split_of[top], {}).setdefault(known[inner[0]], []).append(entry)
        elif len(inner) == 1:
            bad.append(BadFile(files.shown(entry.name), "is not in a class folder"))
        elif not entry.name.lower().endswith(tuple(extensions)):
            bad.append(BadFile(files.shown(entry.name), f"has none of the extensions {', '.join(extensions)}"))
        else:
            found.setdefault(split_of[top], {}).setdefault(class_name(inner[0]), []).append(entry)
    ordered: dict[Split, dict[str, tuple[Entry, ...]]] = {
        split: {name: tuple(found[split][name]) for name in sorted(found[split])} for split in SPLITS if split in found
    }
    return ClassListing(files, ordered, tuple(bad))


def _tops(files: Files, extensions: Sequence[str]) -> set[str]:
    """The top folders of `files` that contain samples."""
    return {entry.name.partition("/")[0] for entry in files.entries() if entry.name.lower().endswith(tuple(extensions))}


def _with_parts(folders: Mapping[Split, Sequence[str]], names: Collection[str]) -> dict[Split, tuple[str, ...]]:
    """The folders of each split, and those among `names` that are a part of one."""
    parts = {name: found[1] for name in sorted(names) if (found := PART.fullmatch(name))}
    return {
        split: (*wanted, *(name for name, whole in parts.items() if whole in wanted))
        for split, wanted in folders.items()
    }


def _refuse_two_names(files: Files, extensions: Sequence[str], folders: Mapping[Split, Sequence[str]]) -> None:
    """Raise UserError if a split has samples in two folders, such as test and testing: it may be a copy or another.

    The same for parts of which one is missing, or two have a sample of the same class and name.
    """
    tops = _tops(files, extensions)
    for split, names in folders.items():
        found = [name for name in names if name in tops]
        if len({PART.sub(r"\1.X", name) for name in found}) > 1:
            raise UserError(
                f"{files.shown()}: the {split} split is in {counted(len(found), 'folder')}: {listed(found)}. Remove or "
                "rename all but one."
            )
        if len(found) > 1:
            _check_parts(files, found, extensions)


def _check_parts(files: Files, parts: Sequence[str], extensions: Sequence[str]) -> None:
    numbers = {int(found[2] or 0) for name in parts if (found := PART.fullmatch(name))}
    stem = parts[0].rpartition(".X")[0]
    missing = [f"{stem}.X{number}" for number in range(1, max(numbers)) if number not in numbers]
    if missing:
        raise UserError(f"{files.shown()}: {listed(parts)} are parts of a split, and {listed(missing)} is missing.")
    seen: dict[str, str] = {}
    for entry in files.entries():
        part, _, name = entry.name.partition("/")
        if part in parts and entry.name.lower().endswith(tuple(extensions)) and seen.setdefault(name, part) != part:
            raise UserError(f"{files.shown()}: {seen[name]} and {part} both have {name}. Remove one of the copies.")
