"""Finds the files of a data set: at a given path, or under one of the usual names in data_dir."""

from __future__ import annotations

import os
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from gradspike.data.files.files import ARCHIVES, Files, MissingSourceError
from gradspike.data.files.names import class_name


def find_source(source: str | None, data_dir: Path, usual_names: Sequence[str], what: str, put: str) -> Files:
    """The files of a data set: `source`, or the first of `usual_names` that exists in data_dir.

    Otherwise raises a UserError that lists the searched names and says what to `put` there ("the official download
    ...").
    """
    if source is not None:
        return Files.open(source)
    for name in usual_names:
        if (data_dir / name).exists():
            return Files.open(data_dir / name)
    every = [name for name in usual_names if all(name + ending in usual_names for ending in ARCHIVES)]
    others = [name for name in usual_names if not any(name.startswith(stem) for stem in every)]
    searched = [*others, *(f"{name} (a folder, or {name}.zip, .tar, ...)" for name in every)]
    raise MissingSourceError(
        f"{what} was not found in data_dir={data_dir}.\n"
        f"  Looked for: {', '.join(searched)}\n"
        f"  Put there: {put}\n"
        f"  Or give the path of the folder or archive: dataset.source=<path>. (data_dir itself must be writable: the "
        "prepared data set is stored there.)"
    )


def nearest_path(path: Path) -> str:
    """A sentence, with a leading space, that suggests the existing path closest to the missing `path`."""
    if path.is_symlink():
        return ""
    missing: list[str] = []
    existing = path.absolute()
    while not existing.exists() and existing != existing.parent:
        missing.insert(0, existing.name)
        existing = existing.parent
    try:
        names = os.listdir(existing) if existing.is_dir() else []
    except OSError:
        names = []
    alike = get_close_matches(missing[0], names, n=1, cutoff=0.6) if missing else []
    if not alike:
        return f" The closest existing path is {existing}."
    if class_name(alike[0]) == class_name(missing[0]):
        return (
            f" {existing / alike[0]} exists, whose name looks the same but is another Unicode form: copy it from there "
            "(ls), or let the shell complete it."
        )
    found = existing.joinpath(alike[0], *missing[1:])
    return f" Did you mean {found if found.exists() else existing / alike[0]}?"
