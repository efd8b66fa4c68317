"""The runs of a sweep's trials, and the state of trials without a run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gradspike.errors import ConfigError
from gradspike.runs.identity import has_id
from gradspike.shown import shown
from gradspike.tools.compare.gather import Gathered, gather, merged
from gradspike.tools.compare.run import Excluded


def gather_sweep(folder: Path) -> Gathered:
    """The finished runs of a sweep's trials. Other runs in its folder are excluded.

    Raises ConfigError if the folder is not a sweep's.
    """
    if not (folder / "sweep.json").is_file():
        raise ConfigError(f"--sweep {shown(folder)}: is not a sweep folder (it has no sweep.json).")
    folder = folder.resolve()
    records = dict(_records(folder))
    claimed = {number: _run_of(folder, record) for number, record in records.items()}
    ours = gather([place for place in claimed.values() if place is not None])
    every = merged([ours, gather([folder / "runs"])]) if (folder / "runs").is_dir() else ours
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
            reason = f"its run {record.get('run')} is missing"
        state = f"{record.get('state')}: {reason}" if reason else str(record.get("state"))
        excluded.append(Excluded(f"{shown(folder)}, trial {number}", state))
    return Gathered(ours.runs, tuple(excluded))


def _run_of(folder: Path, record: Mapping[str, Any]) -> Path | None:
    """The folder of a trial's run: the recorded one, or after a renaming the one with its id or of its process."""
    run_id = record.get("run_id")
    recorded = [folder / str(record["run"])] if record.get("run") else []
    for place in [*recorded, *sorted((folder / "runs").glob("*/"))]:
        ours = has_id(place, run_id) or (place in recorded and run_id is None)
        if ours and (place / "config.yaml").is_file():
            return place.resolve()
    process = (record.get("host"), record.get("pid"))
    for file in sorted((folder / "runs").glob("*/status.json")):
        status = _content(file)
        if None not in process and (status.get("host"), status.get("pid")) == process:
            return file.parent.resolve()
    return None


def _records(folder: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The record of each trial by its number; for a damaged file, a record that states this."""
    for file in sorted((folder / "trials").glob("*/trial.json")):
        if file.parent.name.isdecimal():
            yield int(file.parent.name), _content(file) or {"state": "unknown", "reason": "its trial.json is damaged"}


def _content(file: Path) -> dict[str, Any]:
    """The object in a JSON file, or an empty one if the file is damaged."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
