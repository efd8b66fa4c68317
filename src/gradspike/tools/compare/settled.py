"""Notes on runs that were tested before their norms' running statistics had settled."""

from __future__ import annotations

from collections.abc import Sequence

from gradspike.config.settling import unsettled as described
from gradspike.shown import listed
from gradspike.tools.compare.run import Run, number


def unsettled(runs: Sequence[Run]) -> list[str]:
    """One note that names such runs and the worst of them; none if all have settled."""
    found = {run.path: text for run in runs if (text := _of(run)) is not None}
    if not found:
        return []
    return [
        f"Too short to test: {next(iter(found.values()))}, so validation and test see another network than training "
        f"does. {listed(found)}."
    ]


def _of(run: Run) -> str | None:
    norm = run.config.get("norm")
    momentum = number(norm.get("momentum")) if isinstance(norm, dict) else None
    steps = number(run.summary.get("steps"))
    return described(momentum, int(steps)) if momentum is not None and steps is not None else None
