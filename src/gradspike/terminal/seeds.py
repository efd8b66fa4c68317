"""Settings that were trained with several seeds: mean, spread and interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.table import Table

from gradspike.statistics import INTERVALS, describe


def seeds_table(found: Mapping[str, Sequence[float]], quantity: str) -> Table | None:
    """A row for each setting with the mean of `quantity` over its seeds; None unless a setting has two.

    found: by setting, a fraction for each seed. The spread is the standard deviation over seeds.
    """
    if all(len(values) < 2 for values in found.values()):
        return None
    table = Table(
        title="Over seeds: mean ± standard deviation",
        title_justify="left",
        caption=f"95 % interval of the mean: {INTERVALS}.",
        caption_justify="left",
    )
    table.add_column("setting")
    for column in ("seeds", quantity, "95 % interval"):
        table.add_column(column, justify="right")
    for name, values in found.items():
        if values:
            sample = describe(values)
            spread = "" if sample.sd is None else f" ± {100 * sample.sd:.2f}"
            reach = "-" if sample.low is None or sample.high is None else _reach(sample.low, sample.high)
            table.add_row(name, str(sample.n), f"{100 * sample.mean:.2f}{spread} %", reach)
    return table


def _reach(low: float, high: float) -> str:
    return f"[{100 * low:.2f}, {100 * high:.2f}] %"
