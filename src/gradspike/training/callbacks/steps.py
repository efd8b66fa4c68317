"""Where an optimiser step begins and ends among the micro-batches of which it may consist."""

from __future__ import annotations

import lightning as L


def begins_step(trainer: L.Trainer, batch_idx: int) -> bool:
    """Whether this micro-batch of the epoch is the first of an optimiser step."""
    return batch_idx % trainer.accumulate_grad_batches == 0


def ends_step(trainer: L.Trainer, batch_idx: int) -> bool:
    """Whether the weights have changed once this micro-batch of the epoch is done, and no gradient is kept.

    Only then can a training be saved and gone on with: gradients are not part of a checkpoint.
    """
    return (batch_idx + 1) % trainer.accumulate_grad_batches == 0
