"""timing.jsonl: the time and memory of each epoch. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gradspike.json_text import readable_lines, to_json
from gradspike.runs.files import write_record


def training_seconds(file: Path) -> float:
    """Seconds spent in the epochs of a run, over all sessions. A repeated epoch counts once."""
    by_epoch: dict[int, float] = {}
    for line in _epochs(file):
        by_epoch[line["epoch"]] = max(float(line.get("epoch_seconds", 0.0)), by_epoch.get(line["epoch"], 0.0))
    return sum(by_epoch.values())


def drop_epochs(file: Path, first: int) -> None:
    """Remove half-written lines, and those from epoch `first` on, which a resumed run repeats."""
    if file.is_file():
        kept = [line for line in _epochs(file) if line["epoch"] < first]
        write_record(file, "".join(to_json(line) + "\n" for line in kept))


def _epochs(file: Path) -> Iterator[dict[str, Any]]:
    return (line for line in readable_lines(file) if isinstance(line.get("epoch"), int))
