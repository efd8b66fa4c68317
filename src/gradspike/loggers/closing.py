"""Data for W&B panels at a run's end, in addition to summary.json: energy per inference and a table of the layers.

Imports nothing heavy.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gradspike.cost.energy import energy_of
from gradspike.runs.probe_records import VALIDATION, layer_names, time_steps

LAYER_TABLE = "layers"
LAYER_QUANTITIES = ("firing_rate", "gradient_available")
LAYER_COLUMNS = ("method", "seed", "depth", "layer", "step", *LAYER_QUANTITIES)


def energies(layers: Mapping[str, Any], is_ann: bool) -> dict[str, float]:
    """The estimated energy (nJ) of an inference with the last and the best weights, from layers.json."""
    return {f"test/{which}/energy_nj": energy_of(layers[which], is_ann).nanojoules for which in ("last", "best")}


def last_validation(metrics: Path) -> dict[str, Any]:
    """The probe's record of the last validation in metrics.jsonl, or an empty record."""
    found: dict[str, Any] = {}
    with metrics.open(encoding="utf-8") as file:
        for line in file:
            if f'"{VALIDATION}/' in line:
                found = json.loads(line)
    return found


def layer_rows(validation: Mapping[str, Any], method: str, seed: int) -> list[list[Any]]:
    """A row of LAYER_COLUMNS for each layer and time step, in the network's order."""
    rows = []
    for depth, layer in enumerate(layer_names([validation], VALIDATION, LAYER_QUANTITIES[0])):
        keys = [time_steps(validation, VALIDATION, layer, quantity) for quantity in LAYER_QUANTITIES]
        for step, there in enumerate(zip(*keys, strict=True)):
            rows.append([method, seed, depth, layer, step, *(validation[key] for key in there)])
    return rows
