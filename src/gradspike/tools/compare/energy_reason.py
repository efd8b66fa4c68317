"""Why the estimated energy hardly differs between groups, where it does not."""

from __future__ import annotations

from gradspike.shown import listed
from gradspike.tools.compare.report import Comparison

NEARLY = 0.01
"""The relative range of energies that counts as equal."""


def energy_reason(comparison: Comparison) -> str | None:
    """The reason, if at least two groups of spiking networks have equal energies but different firing rates."""
    rows = [row for row in comparison.rows if row.energy is not None and not row.group.runs[0].is_ann]
    means = [row.energy.mean for row in rows if row.energy is not None]
    if len(rows) < 2 or max(means) - min(means) > NEARLY * max(means):
        return None
    rates = {f"{row.firing_rate.mean:.4f}" for row in rows if row.firing_rate is not None}
    energies = [energy for row in rows for energy in row.energies]
    of_macs = sum(layer.picojoules for energy in energies for layer in energy.layers if not layer.accumulates) / max(
        sum(layer.picojoules for energy in energies for layer in energy.layers), 1e-30
    )
    real = list(dict.fromkeys(layer.name for one in energies for layer in one.layers if not layer.accumulates))
    if len(rates) < 2 or of_macs < 1 - NEARLY:
        return None
    return (
        f"Energy is equal although the firing rates differ: {100 * of_macs:.0f} % of it is spent in layers whose "
        f"inputs are real numbers ({listed(real, 4)}), which need all their multiply-accumulates. Average pooling "
        "makes spikes real numbers; model.pool=max keeps them."
    )
