"""Whether the results of a finished run are all there."""

from __future__ import annotations

from pathlib import Path

from gradspike.json_text import readable
from gradspike.runs.folder import CONFUSION, LAYERS, NEUROBENCH, RunFolder


def damaged_results(run: RunFolder) -> list[str]:
    """The names of the records of a finished run that are missing or damaged. Not its checkpoints, which people delete
    to save space; nor a missing neurobench.json, which runs of older versions do not have.
    """
    names = ["summary.json", CONFUSION, LAYERS, *([] if lacks_neurobench(run) else [NEUROBENCH])]
    damaged = [name for name in names if readable(run.path / name) is None]
    return damaged if _ends_a_line(run.metrics) else [*damaged, run.metrics.name]


def lacks_neurobench(run: RunFolder) -> bool:
    """Whether the run has no record of NeuroBench's metrics."""
    return not (run.path / NEUROBENCH).exists()


def _ends_a_line(file: Path) -> bool:
    try:
        with file.open("rb") as content:
            content.seek(-1, 2)
            return content.read() == b"\n"
    except OSError:  # a missing file, or an empty one
        return False
