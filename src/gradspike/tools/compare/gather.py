"""Finds the runs in folders and counts each once. Imports nothing heavy."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gradspike.errors import UserError
from gradspike.shown import shown
from gradspike.tools.compare.folder import MARKS, Unusable, check, read_run
from gradspike.tools.compare.run import Excluded, Run
from gradspike.tools.compare.wandb_files import read_wandb


@dataclass(frozen=True)
class Gathered:
    """The runs found, and those excluded."""

    runs: tuple[Run, ...]
    excluded: tuple[Excluded, ...]


def gather(paths: Sequence[Path], without: frozenset[Path] = frozenset()) -> Gathered:
    """All runs below `paths` (folders, run folders, W&B's folders or files), each once.

    without: run folders (resolved) that are not read. Raises UserError for a path that does not exist.
    """
    runs: list[Run] = []
    excluded: list[Excluded] = []
    closed: list[OSError] = []
    # Run folders come first, because W&B's files contain less.
    for files in _by_run(place for place in _places(paths, closed) if place not in without):
        try:
            runs.append(_read_offline(files) if files[0].suffix == ".wandb" else read_run(files[0]))
        except (Unusable, UserError) as reason:
            excluded.append(Excluded(shown(files[0]), str(reason)))
    excluded += [Excluded(shown(Path(one.filename)), f"the folder cannot be read ({one.strerror})") for one in closed]
    return merged([Gathered(tuple(runs), tuple(excluded))])


def merged(parts: Iterable[Gathered]) -> Gathered:
    """All runs, each once. Excludes copies of a run, whatever their folders' names."""
    runs: dict[str, Run] = {}
    excluded: list[Excluded] = []
    offline: list[Run] = []
    for part in parts:
        excluded += part.excluded
        for run in part.runs:
            if run.source == "wandb":
                offline.append(run)
                continue
            first = runs.setdefault(run.id, run)
            if first.path != run.path:
                excluded.append(Excluded(run.path, f"is a copy of {first.path}{_difference(first, run)}; counted once"))
    by_id: dict[str, list[Run]] = {}
    for run in runs.values():
        for one in run.wandb_ids:
            by_id.setdefault(one, []).append(run)
    for run in offline:
        original = next((one for one in by_id.get(run.id, ()) if _alike(one, run)), None)
        first = original or runs.setdefault(run.id, run)
        if first.path != run.path:
            what = "W&B's files" if original else "another copy of W&B's files"
            excluded.append(Excluded(run.path, f"{what} of {first.path}{_difference(first, run)}; counted once"))
    return Gathered(tuple(runs.values()), tuple(dict.fromkeys(excluded)))


def _alike(one: Run, other: Run) -> bool:
    return (one.seed, one.label) == (other.seed, other.label)


def _difference(first: Run, other: Run) -> str:
    return (
        ""
        if first.final("last") == other.final("last")
        else ", but has a DIFFERENT test accuracy: one of them was changed"
    )


def _by_run(places: Iterable[Path]) -> list[list[Path]]:
    """Each run folder, then W&B's files grouped by run, since a resumed run has several."""
    found = sorted(set(places))
    offline: dict[str, list[Path]] = {}
    for place in found:
        if place.suffix == ".wandb":
            offline.setdefault(place.stem, []).append(place)
    return [[place] for place in found if place.suffix != ".wandb"] + list(offline.values())


def _read_offline(files: list[Path]) -> Run:
    run, ended = read_wandb(files, shown(files[0]))
    if not ended:
        raise Unusable("its W&B files record a failure, or no end")
    check(run.config, run.summary)
    return run


def _places(paths: Sequence[Path], closed: list[OSError]) -> Iterator[Path]:
    """Run folders, and W&B's files outside run folders, sorted by name.

    closed: takes the errors of folders that cannot be read.
    """
    seen: set[Path] = set()
    for path in paths:
        if not path.exists():
            raise UserError(f"{shown(path)}: does not exist.")
        if path.is_file():
            if path.suffix != ".wandb":
                raise UserError(f"{shown(path)}: is neither a folder nor one of W&B's files (*.wandb).")
            yield path.resolve()
            continue
        for folder, inner, files in os.walk(path.resolve(), onerror=closed.append, followlinks=True):
            here = Path(folder).resolve()
            if here in seen:
                inner.clear()
                continue
            seen.add(here)
            inner[:] = sorted(name for name in inner if not name.startswith("."))
            if sum(mark in files for mark in MARKS) >= 2 or (here == path.resolve() and MARKS[0] in files):
                inner.clear()
                yield here
            elif any(name.endswith(".wandb") for name in files):
                inner.clear()
                yield from (here / name for name in files if name.endswith(".wandb"))
