"""Reads the probe's records, whose keys training/probe/probe.py describes. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

VALIDATION = "probe_val"
HISTOGRAM_RANGE = 2.0
_NETWORK = ("mean", "spread_layers", "spread_steps")


def layer_names(records: Sequence[Mapping[str, Any]], prefix: str, quantity: str) -> list[str]:
    """The names of the layers with this quantity, in the network's order."""
    names: dict[str, None] = {}
    for record in records:
        for key in record:
            if key.startswith(f"{prefix}/") and key.endswith(f"/{quantity}"):
                names[key[len(prefix) + 1 : -len(quantity) - 1]] = None
    return [name for name in names if name not in _NETWORK]


def time_steps(record: Mapping[str, Any], prefix: str, layer: str, quantity: str) -> list[str]:
    """The keys of a layer's numbers at time steps 0, 1, ..., in this order."""
    start = f"{prefix}/{layer}/{quantity}/t"
    found = [key for key in record if key.startswith(start) and key[len(start) :].isdigit()]
    return sorted(found, key=lambda key: int(key[len(start) :]))


def histogram_edges(bins: int) -> list[float]:
    """Bin edges [bins + 1] of the histograms of (u - theta) / kappa."""
    return [HISTOGRAM_RANGE * (2 * edge / bins - 1) for edge in range(bins + 1)]
