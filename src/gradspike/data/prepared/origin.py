"""The origin of prepared sets: the path of their files, recorded in meta.json, and which set may replace missing files.

A set replaces missing files only if its recorded path is the requested one. Nothing else in data_dir proves that it
holds the same data.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gradspike.data.files.files import ARCHIVES
from gradspike.data.prepared.digests import DamagedError
from gradspike.data.prepared.disk import size_text
from gradspike.data.prepared.stored import Prepared, canonical, open_stored, read_meta, stored_sets

log = logging.getLogger(__name__)

OF_ORIGIN = ("format", "source")
"""Keys that describe the origin of a set, not its options. All keys with "version" in their name do so, too."""


def origin(path: Path, data_dir: Path) -> dict[str, Any]:
    """The facts to record about a set made from `path`: its resolved path, and its path in data_dir if it is inside.

    The second lets a data_dir that is moved or copied as a whole keep its sets.
    """
    resolved, base = os.path.realpath(path), os.path.realpath(data_dir)
    inside = Path(resolved).is_relative_to(base)
    return {"path": resolved, "path_in_data_dir": os.path.relpath(resolved, base) if inside else None}


def came_from(facts: Mapping[str, Any], asked: Mapping[str, Any]) -> bool:
    """Whether a set with these `facts` was made from the path whose `origin` is `asked`."""
    if "path" in facts:
        inside = asked["path_in_data_dir"]
        return facts["path"] == asked["path"] or (inside is not None and facts["path_in_data_dir"] == inside)
    # Sets of earlier versions record only the path shown to the user: the path of the files or of a folder in an
    # archive.
    shown = Path(os.path.realpath(str(facts.get("source", ""))))
    path = Path(asked["path"])
    return shown == path or (path in shown.parents and path.name.lower().endswith(ARCHIVES))


def stand_in(
    data_dir: Path, name: str, key: Mapping[str, Any], asked: Sequence[Mapping[str, Any]], known: Sequence[str]
) -> Prepared | None:
    """The set `name` made from one of the paths `asked` with the options in `key`; None if there is not exactly one.

    known: the last known fingerprints of these paths, because a set of earlier files does not replace later ones.
    Raises DamagedError if the only such set is damaged.
    """
    wanted = {**canonical(key), "source": None}
    found = []
    damaged = []
    for folder in stored_sets(data_dir, name):
        try:
            meta = read_meta(folder)
            if {**meta["key"], "source": None} != wanted or (known and meta["key"]["source"] not in known):
                continue
        except DamagedError:
            continue
        if any(came_from(meta["facts"], path) for path in asked):
            try:
                found.append(open_stored(folder, meta["key"]))
            except DamagedError as damage:
                damaged.append(f"The prepared set in {folder} is damaged ({damage})")
    if len(damaged) == 1 and not found:
        raise DamagedError(damaged[0])
    return found[0] if len(found) == 1 else None


def recorded_paths(data_dir: Path, name: str) -> dict[str, list[str]]:
    """The folder names of all sets `name`, by the path of their files, for an error message."""
    paths: dict[str, list[str]] = {}
    for folder in stored_sets(data_dir, name):
        try:
            facts = read_meta(folder)["facts"]
            path = str(facts.get("path") or facts.get("source", "unknown files"))
        except DamagedError as damage:
            path = f"unknown files ({damage})"
        paths.setdefault(path, []).append(folder.name)
    return paths


def report_old_sets(opened: Prepared, name: str, key: Mapping[str, Any]) -> None:
    """Log the sets that this one replaces: same options and path, but earlier files or an earlier version.

    Includes sets derived from them (with "of" in their key, such as splits).
    """
    if "of" in key:
        return
    metas = {}
    for folder in sorted(opened.folder.parent.glob("*-*")):
        try:
            metas[folder] = read_meta(folder)
        except DamagedError:
            continue
    siblings = set(stored_sets(opened.folder.parent.parent, name)) - {opened.folder}
    old = [folder for folder in metas if folder in siblings and _replaced(metas[folder], opened.facts, key)]
    old += [folder for folder in metas if metas[folder]["key"].get("of") in {replaced.name for replaced in old}]
    if old:
        size = sum(file.stat().st_size for folder in old for file in folder.iterdir())
        log.info(
            "Sets made from earlier files or by another version, which can be deleted (%s): %s",
            size_text(size),
            ", ".join(str(folder) for folder in old),
        )


def _replaced(old: Mapping[str, Any], facts: Mapping[str, Any], key: Mapping[str, Any]) -> bool:
    before = old["key"]
    later = any("version" in option and before[option] > key.get(option, 0) for option in before)
    same_files = came_from(old["facts"], facts) if "path" in facts else "path" not in old["facts"]
    return _options(before) == _options(key) and same_files and not later


def _options(key: Mapping[str, Any]) -> dict[str, Any]:
    return {option: value for option, value in key.items() if "version" not in option and option not in OF_ORIGIN}
