"""The runs of a sweep's trials, and the state of the trials without one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gradspike.errors import ConfigError
from gradspike.tools.compare.gather import Gathered, gather, shown
from gradspike.tools.compare.run import Excluded


def gather_sweep(folder: Path) -> Gathered:
    """The finished runs of a sweep's trials. Other runs in its folder are excluded.

    Raises ConfigError if the folder is not a sweep's.
    """
    if not (folder / "sweep.json").is_file():
        raise ConfigError(f"--sweep {folder}: is not the folder of a sweep (no sweep.json).")
    runs = folder / "runs"
    found = gather([runs]) if runs.is_dir() else Gathered((), ())
    records = dict(_records(folder))
    claimed = {str((folder / str(record["run"])).resolve()) for record in records.values() if record.get("run")}
    excluded = list(found.excluded)
    kept = []
    for run in found.runs:
        if str(Path(run.path).resolve()) in claimed:
            kept.append(run)
        else:
            excluded.append(Excluded(run.path, "belongs to no trial of the sweep"))
    known = {str(Path(one.path).resolve()) for one in excluded}
    for number, record in sorted(records.items()):
        place = record.get("run")
        if record.get("state") == "finished" or (place and str((folder / str(place)).resolve()) in known):
            continue
        reason = f": {record['reason']}" if record.get("reason") else ""
        excluded.append(Excluded(f"{shown(folder.resolve())}, trial {number}", f"{record.get('state')}{reason}"))
    return Gathered(tuple(kept), tuple(excluded))


def _records(folder: Path) -> Any:
    """The record of each trial by its number; for a damaged file a record that says so."""
    for file in sorted((folder / "trials").glob("*/trial.json")):
        try:
            record = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            record = {"state": "unknown", "reason": "its trial.json is damaged"}
        yield int(file.parent.name), record
