"""The results of a sweep whose trials are averaged over seeds or have two objectives: means, and the front."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table

from gradspike.shown import printable
from gradspike.terminal.tables import percent
from gradspike.tools.sweep.file import ENERGY, Metric

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    Members = Sequence[FrozenTrial]


def results_table(trials: Members, metrics: Sequence[Metric]) -> Table | None:
    """The finished trials or sets, best first, with the front of two objectives marked; None for a plain sweep."""
    from gradspike.tools.sweep.sets import SEED, grouped, mean_values, set_of, state_of

    averaged = any(set_of(trial) is not None for trial in trials)
    if not averaged and len(metrics) == 1:
        return None
    complete = [members for members in grouped(trials).values() if state_of(members).name == "COMPLETE"]
    found = [(members, values) for members in complete if (values := mean_values(members)) is not None]
    best = front([values for _, values in found], metrics)
    sign = -1 if metrics[0].goal == "maximize" else 1
    table = Table(title="Mean over seeds" if averaged else "Both objectives", title_justify="left")
    columns = ["parameters", *(["seeds"] if averaged else []), *(metric.name for metric in metrics)]
    for column in [*columns, *(["front"] if len(metrics) > 1 else [])]:
        table.add_column(column, justify="left" if column == "parameters" else "right")
    for at in sorted(range(len(found)), key=lambda at: sign * found[at][1][0]):
        members, values = found[at]
        parameters = members[0].user_attrs.get("values") or {}
        shown = {key: value for key, value in parameters.items() if not (averaged and key == SEED)}
        table.add_row(
            described(shown),
            *([str(len(members))] if averaged else []),
            *(_with_spread(metric, [one.values[place] for one in members]) for place, metric in enumerate(metrics)),
            *(["*" if at in best else ""] if len(metrics) > 1 else []),
        )
    return table


def front(values: Sequence[Sequence[float]], metrics: Sequence[Metric]) -> set[int]:
    """The places of the values that no other ones beat: not worse in any objective, and better in one."""
    signs = [1 if metric.goal == "maximize" else -1 for metric in metrics]
    scores = [tuple(sign * value for sign, value in zip(signs, one, strict=True)) for one in values]

    def beaten(one: tuple[float, ...]) -> bool:
        return any(all(b >= a for a, b in zip(one, other, strict=True)) and other != one for other in scores)

    return {place for place, one in enumerate(scores) if not beaten(one)}


def shown_value(metric: Metric, value: float | None) -> str:
    """A value of a metric as text."""
    if value is None or metric.name == ENERGY:
        return "-" if value is None else f"{value:,.4g} nJ"
    return f"{value:.4f}" if metric.quantity == "loss" else percent(value)


def _with_spread(metric: Metric, values: Sequence[float]) -> str:
    mean = shown_value(metric, statistics.fmean(values))
    return mean if len(values) < 2 else f"{mean} ± {shown_value(metric, statistics.stdev(values))}"


def described(parameters: Mapping[str, Any]) -> str:
    """`method=psg seed=0`."""
    return printable(" ".join(f"{key}={value}" for key, value in parameters.items()))
