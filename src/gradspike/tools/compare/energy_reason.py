"""Why the estimated energy hardly differs between groups, where it does not."""

from __future__ import annotations

from collections import defaultdict

from gradspike.shown import listed
from gradspike.tools.compare.report import Comparison

NEARLY = 0.01
"""The relative range of energies that counts as equal."""


def energy_reason(comparison: Comparison) -> str | None:
    """The reason, if at least two groups of spiking networks have equal energies but different firing rates."""
    rows = [row for row in comparison.rows if row.energy is not None and not row.group.runs[0].is_ann]
    means = [row.energy.mean for row in rows if row.energy is not None]
    if len(rows) < 2 or not max(means) - min(means) <= NEARLY * max(means):  # also if one is NaN
        return None
    rates = {f"{row.firing_rate.mean:.4f}" for row in rows if row.firing_rate is not None}
    spent: dict[str, list[float]] = defaultdict(list)
    accumulating: set[str] = set()
    for layer in (layer for row in rows for energy in row.energies for layer in energy.layers):
        spent[layer.name].append(layer.picojoules)
        if layer.accumulates:
            accumulating.add(layer.name)
    whole = max(sum(sum(one) for one in spent.values()), 1e-30)
    real = [name for name in spent if name not in accumulating]
    same = [name for name in spent if name in accumulating and max(spent[name]) - min(spent[name]) <= 1e-6 * whole]
    of_real, of_same = (sum(sum(spent[name]) for name in names) / whole for names in (real, same))
    if len(rates) < 2 or not real or not of_real + of_same >= 1 - NEARLY:
        return None
    rest = (
        f", and {100 * of_same:.0f} % in {listed(same, 4)}, which has the same inputs in all networks"
        if of_same > NEARLY
        else ""
    )
    return (
        f"Energy is equal although the firing rates differ: {100 * of_real:.0f} % of it is spent in layers whose "
        f"inputs are real numbers ({listed(real, 4)}), which need all their multiply-accumulates{rest}. Average "
        "pooling makes spikes real numbers; model.pool=max keeps them."
    )
