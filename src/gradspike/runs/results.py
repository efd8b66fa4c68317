"""Whether the results of a finished run are all there."""

from __future__ import annotations

from pathlib import Path

from gradspike.json_text import readable
from gradspike.runs.folder import CONFUSION, LAYERS, RunFolder


def damaged_results(run: RunFolder) -> list[str]:
    """The names of the records of a finished run that are missing or damaged. Not its checkpoints, which people delete
    to save space.
    """
    damaged = [name for name in ("summary.json", CONFUSION, LAYERS) if readable(run.path / name) is None]
    return damaged if _ends_a_line(run.metrics) else [*damaged, run.metrics.name]


def _ends_a_line(file: Path) -> bool:
    try:
        with file.open("rb") as content:
            content.seek(-1, 2)
            return content.read() == b"\n"
    except OSError:  # a missing file, or an empty one
        return False
