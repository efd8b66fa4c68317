"""Files sorted into splits and classes by their folders: `split/class/name.ext`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gradspike.data.files.bad_file import BadFile
from gradspike.data.files.containers import Entry
from gradspike.data.files.files import Files
from gradspike.data.source import SPLITS, Split

SPLIT_FOLDERS: Mapping[Split, tuple[str, ...]] = {
    "train": ("train", "Train", "training"),
    "val": ("val", "Val", "valid", "validation"),
    "test": ("test", "Test", "testing"),
}


@dataclass(frozen=True)
class ClassListing:
    """The files of each split and class, both sorted, and the files that cannot be used."""

    files: Files
    splits: dict[Split, dict[str, tuple[Entry, ...]]]
    bad: tuple[BadFile, ...]

    def class_names(self) -> tuple[str, ...]:
        """The classes of all splits, sorted."""
        return tuple(sorted({name for classes in self.splits.values() for name in classes}))


def list_by_class(
    files: Files, extensions: Sequence[str], folders: Mapping[Split, Sequence[str]] = SPLIT_FOLDERS
) -> ClassListing:
    """List `split/class/name.ext`, with any folders around the splits and between class and name.

    extensions: lower case, with the dot. Files beside the split folders (README, LICENSE) are ignored. In a split
    folder, a file with another extension or in no class folder is a bad file. Missing splits are not in the result.
    """
    names = [name for wanted in folders.values() for name in wanted]
    files = files.within_single_folder(*names)
    split_of = {name: split for split, wanted in folders.items() for name in wanted}
    found: dict[Split, dict[str, list[Entry]]] = {}
    bad = list(files.bad())
    for entry in files.entries():
        top, *inner = entry.name.split("/")
        if top not in split_of or not inner:
            continue
        if len(inner) == 1:
            bad.append(BadFile(files.shown(entry.name), "is in no class folder"))
        elif not entry.name.lower().endswith(tuple(extensions)):
            bad.append(BadFile(files.shown(entry.name), f"is not one of {', '.join(extensions)}"))
        else:
            found.setdefault(split_of[top], {}).setdefault(inner[0], []).append(entry)
    ordered: dict[Split, dict[str, tuple[Entry, ...]]] = {
        split: {name: tuple(found[split][name]) for name in sorted(found[split])} for split in SPLITS if split in found
    }
    return ClassListing(files, ordered, tuple(bad))
