"""Micro-batches: the first and the last one of an optimiser step, and even shares of samples."""

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


def share_of(samples: int, batch_idx: int, batches: int) -> int:
    """The number of samples to take from this batch so that all batches together give `samples`, spread evenly."""
    return (batch_idx + 1) * samples // batches - batch_idx * samples // batches
