"""A checkpoint for another number of devices, or of parts of a batch, than the one that saved it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

Counts = dict[str, dict[str, Any]]


def count_in_parts(checkpoint: dict[str, Any], accumulate: int) -> None:
    """Rescale Lightning's batch counters, which count parts of batches, to `accumulate` parts per batch.

    Exact within an epoch too, because checkpoints are saved between batches. Optimiser steps count whole batches.
    """
    before = int(checkpoint["config"]["trainer"].get("accumulate", 1))
    if before == accumulate:
        return
    progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
    for counts in (progress["total"], progress["current"]):
        # `completed` counts a batch after its callbacks, one of which saves.
        unfinished = counts["ready"] - counts["completed"]
        for name in ("ready", "started", "processed"):
            assert counts[name] % before == 0, progress
            counts[name] = counts[name] // before * accumulate
        counts["completed"] = counts["ready"] - unfinished


def summed(states: list[Counts]) -> Counts:
    """The counts of several ranks as those of one."""
    return {
        name: {key: _total([state[name][key] for state in states]) for key in counts}
        for name, counts in states[0].items()
    }


def _total(values: list[Tensor]) -> Tensor:
    return torch.stack(values).sum(0).to(values[0].dtype)
