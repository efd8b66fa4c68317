"""The runs of a sweep's trials, and the state of trials without a run."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from gradspike.errors import ConfigError, UserError
from gradspike.json_text import readable
from gradspike.runs.alive import running_or_killed
from gradspike.runs.files import fast_yaml
from gradspike.runs.identity import has_id, id_of, written_by
from gradspike.shown import shown
from gradspike.tools.compare.gather import Gathered, gather, merged
from gradspike.tools.compare.run import Excluded

UNFINISHED = ("running", "stopping")
"""States of a trial that a killed process and runner leave behind."""


def gather_sweep(folder: Path) -> Gathered:
    """The finished runs of a sweep's trials. Other runs in its folder are excluded.

    Raises ConfigError if the folder is not a sweep's.
    """
    if not (folder / "sweep.json").is_file():
        raise ConfigError(f"--sweep {shown(folder)}: is not a sweep folder (it has no sweep.json).")
    folder = folder.resolve()
    records = dict(_records(folder))
    there = _Places(folder)
    claimed = {number: there.run_of(record) for number, record in records.items()}
    ours = gather([place for place in claimed.values() if place is not None])
    every = ours
    if (folder / "runs").is_dir():
        read = frozenset(place for place in claimed.values() if place is not None)
        every = merged([ours, gather([folder / "runs"], without=read)])
    excluded = list(every.excluded)
    mine = {run.path for run in ours.runs}
    excluded += [Excluded(run.path, "belongs to no trial of the sweep") for run in every.runs if run.path not in mine]
    found = mine | {one.path for one in excluded}
    for number, record in sorted(records.items()):
        place = claimed[number]
        if place is not None and shown(place) in found:
            continue
        reason = str(record.get("reason") or "")
        if record.get("state") == "finished":
            lost = "cannot be read" if (folder / str(record.get("run"))).exists() else "is missing"
            reason = f"its run {record.get('run')} {lost}"
        state = str(record.get("state"))
        if state in UNFINISHED:
            state = running_or_killed(folder / "trials" / str(number), record.get("host"))
        state = f"{state}: {reason}" if reason else state
        excluded.append(Excluded(f"{shown(folder)}, trial {number}", state))
    return Gathered(ours.runs, tuple(excluded))


def question(folder: Path) -> str | None:
    """The question that a sweep answers: the description in its file, else the first sentence of the comment above it;
    None if there is neither."""
    try:
        text = (folder / "sweep.yaml").read_text(encoding="utf-8")
        described = fast_yaml(text).get("description")
    except (OSError, UnicodeDecodeError, yaml.YAMLError, AttributeError):
        return None
    if described:
        return " ".join(str(described).split())
    lines = []
    for line in text.splitlines():
        if not line.startswith("#") or not line.strip("# "):
            break
        lines.append(line.strip("# "))
    return re.split(r"(?<=[?.]) ", " ".join(lines))[0] or None


class _Places:
    """The run folders of a sweep. They are read once, and only if a recorded one is not in its place."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run_of(self, record: Mapping[str, Any]) -> Path | None:
        """The folder of a trial's run: the recorded one, or after a renaming the one with its id or of its process."""
        run_id = record.get("run_id")
        recorded = self.folder / str(record.get("run"))
        if record.get("run") and (run_id is None or has_id(recorded, run_id)) and _is_run(recorded):
            return recorded.resolve()
        process = (record.get("host"), record.get("pid"))
        if run_id is not None and run_id in self._by_id:
            return self._by_id[run_id]
        since = float(record.get("started") or 0.0)
        return next((run for run in self._by_process.get(process, ()) if written_by(run, process, since)), None)

    @cached_property
    def _all(self) -> list[Path]:
        return [place.resolve() for place in sorted((self.folder / "runs").glob("*/"))]

    @cached_property
    def _by_id(self) -> dict[str, Path]:
        return {run_id: place for place in reversed(self._all) if _is_run(place) and (run_id := _id(place)) is not None}

    @cached_property
    def _by_process(self) -> dict[tuple[Any, Any], list[Path]]:
        found: dict[tuple[Any, Any], list[Path]] = {}
        for place in self._all:
            status = readable(place / "status.json") or {}
            found.setdefault((status.get("host"), status.get("pid")), []).append(place)
        return found


def _is_run(place: Path) -> bool:
    return os.path.isfile(place / "config.yaml")  # Path.is_file raises for a folder that may not be read


def _id(place: Path) -> str | None:
    try:
        return id_of(place)
    except UserError:
        return None


def _records(folder: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The record of each trial by its number; for a file that is damaged or closed, a record that states this."""
    for name in os.listdir(folder / "trials"):
        if name.isdecimal():
            file = folder / "trials" / name / "trial.json"
            try:
                content = json.loads(file.read_text(encoding="utf-8"))
            except FileNotFoundError:
                continue  # claimed, and not begun
            except OSError as error:
                yield int(name), {"state": "unknown", "reason": f"its trial.json cannot be read ({error.strerror})"}
                continue
            except ValueError:
                content = None
            damaged = {"state": "unknown", "reason": "its trial.json is damaged"}
            yield int(name), content if isinstance(content, dict) else damaged
