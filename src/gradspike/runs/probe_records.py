"""The probe's records, as they are read back: which layers they have, and what a layer did in each time step.

How a record's keys are made stands at the head of callbacks/probe.py. Imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

VALIDATION = "probe_val"
_NETWORK = ("mean", "spread_layers", "spread_steps")


def layer_names(records: Sequence[Mapping[str, Any]], prefix: str, quantity: str) -> list[str]:
    """Layers with this quantity, in the order of the records, which is the network's."""
    names: dict[str, None] = {}
    for record in records:
        for key in record:
            if key.startswith(f"{prefix}/") and key.endswith(f"/{quantity}"):
                names[key[len(prefix) + 1 : -len(quantity) - 1]] = None
    return [name for name in names if name not in _NETWORK]


def time_steps(record: Mapping[str, Any], prefix: str, layer: str, quantity: str) -> list[str]:
    """The keys of a layer's numbers at time steps 0, 1, ..."""
    start = f"{prefix}/{layer}/{quantity}/t"
    found = [key for key in record if key.startswith(start) and key[len(start) :].isdigit()]
    return sorted(found, key=lambda key: int(key[len(start) :]))
