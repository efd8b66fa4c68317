"""Train the same configurations on different numbers of ranks, and measure how far their states are apart."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from helpers.command import ROOT, TINY, execute
from helpers.warm import warm_python

States = dict[str, dict[str, Tensor]]
WORKER = ROOT / "tests" / "helpers" / "ranks_worker.py"
BASE = [*TINY, "dataset.batch_size=48", "time_steps=3", "optimizer.lr=0.05"]
WIDTH = "model.width=3"
ROUNDING = 1e-10
"""The largest relative difference after the worker's steps in float64 that is one of rounding."""


def train_entries(folder: Path, data_dir: Path, entries: Mapping[str, Mapping[str, Any]]) -> dict[str, States]:
    """The states after training, by the names of the entries of a plan (`ranks_worker.py`). folder: an empty one."""
    plan: list[dict[str, Any]] = []
    for name, entry in entries.items():
        words = {case: [*_base(more), f"data_dir={data_dir}", *more] for case, more in entry["cases"].items()}
        plan.append({"name": name, **entry, "cases": words})
    (folder / "plan.json").write_text(json.dumps(plan))
    done = execute(
        *warm_python(), str(WORKER), str(folder / "plan.json"), str(folder),
        timeout=3600, PYTHONPATH=str(ROOT / "tests"), OMP_NUM_THREADS="1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return {name: torch.load(folder / f"{name}.pt", weights_only=True) for name in entries}


def _base(more: list[str]) -> list[str]:
    """Without the options of the default network if a case has another."""
    if any(word.startswith("model=") for word in more):
        return [word for word in BASE if not word.startswith("model.")]
    return [*BASE, WIDTH]


def furthest(state: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """The largest difference, relative to the largest value of its tensor."""
    assert state.keys() == other.keys()
    return max(
        float((value.double() - other[key].double()).abs().max() / other[key].double().abs().max().clamp_min(1e-3))
        for key, value in state.items()
        if not key.endswith("width_clamps")
    )
