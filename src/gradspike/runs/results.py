"""Whether the results of a finished run are all there."""

from __future__ import annotations

import json
from pathlib import Path

from gradspike.runs.folder import CONFUSION, LAYERS, RunFolder


def damaged_results(run: RunFolder) -> list[str]:
    """The names of the records of a finished run that are missing or damaged. Not its checkpoints, which people delete
    to save space.
    """
    damaged = [name for name in ("summary.json", CONFUSION, LAYERS) if not _is_record(run.path / name)]
    return damaged if _ends_a_line(run.metrics) else [*damaged, run.metrics.name]


def _is_record(file: Path) -> bool:
    try:
        return isinstance(json.loads(file.read_text(encoding="utf-8")), dict)
    except (OSError, ValueError):
        return False


def _ends_a_line(file: Path) -> bool:
    try:
        with file.open("rb") as content:
            content.seek(-1, 2)
            return content.read() == b"\n"
    except OSError:  # a missing file, or an empty one
        return False
