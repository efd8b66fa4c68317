"""A table of what the runs of a summary look like inside the network, for Markdown and the page."""

from __future__ import annotations

from collections.abc import Sequence

from gradspike.errors import ConfigError
from gradspike.statistics import describe
from gradspike.tools.claims.figures import measured
from gradspike.tools.claims.quantities import QUANTITIES
from gradspike.tools.claims.summary import Record, Summary

COLUMNS = {
    "firing_rate": "firing rate (%)",
    "firing_rate_over_layers": "its SD over layers (points)",
    "available": "gradient-available share (%)",
    "available_last": "the same, last three layers (%)",
    "kappa": "surrogate width",
    "theta": "threshold",
}
"""Quantities and their headings."""
CAPTION = (
    "Inside the network at the last validation: means over layers and time steps, mean ± standard deviation over seeds."
)


def inside(summary: Summary) -> list[list[str]]:
    """The heading and one row for each group of runs; empty without measurements."""
    groups = measured(summary)
    if not groups:
        return []
    heading = ["runs", "n", *COLUMNS.values()]
    return [
        heading,
        *([label, str(len(runs)), *(_cell(runs, one) for one in COLUMNS)] for label, runs in groups.items()),
    ]


def _cell(runs: Sequence[Record], quantity: str) -> str:
    """`17.62 ± 0.35`, which does not break. A dash if a run has no finite number."""
    try:
        sample = describe([QUANTITIES[quantity].of(run) for run in runs])
    except ConfigError:
        return "\N{EN DASH}"
    digits = 2 if QUANTITIES[quantity].unit in ("%", "points") else 3
    space = "\N{NO-BREAK SPACE}"
    return f"{sample.mean:.{digits}f}" + ("" if sample.sd is None else f"{space}±{space}{sample.sd:.{digits}f}")
