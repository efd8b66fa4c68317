"""Where an optimiser step begins and ends, if it takes several micro-batches."""

from __future__ import annotations

import lightning as L


def begins_step(trainer: L.Trainer, batch_idx: int) -> bool:
    """Whether this micro-batch is the first of an optimiser step."""
    return batch_idx % trainer.accumulate_grad_batches == 0


def ends_step(trainer: L.Trainer, batch_idx: int) -> bool:
    """Whether an optimiser step ends with this micro-batch.

    Only then can training be saved and resumed, because checkpoints do not contain gradients.
    """
    return (batch_idx + 1) % trainer.accumulate_grad_batches == 0
