"""SLTT-K: in each batch only the losses of K random time steps have a gradient (Meng et al., ICCV 2023)."""

from __future__ import annotations

import torch
from torch import Tensor

from gradspike.data.augment.counter_random import mix_integers

_DRAW = 0x511  # apart from the draws of other parts of a training


def with_gradient_of_some_steps(logits: Tensor, count: int, seed: int, epoch: int, step: int) -> Tensor:
    """Logits [T, B, K], without gradient but for `count` random steps.

    The steps follow from (seed, epoch, step), so they are the same on all ranks and in a resumed run.
    """
    generator = torch.Generator().manual_seed(mix_integers(seed, _DRAW, epoch, step))
    chosen = torch.zeros(len(logits), dtype=torch.bool)
    chosen[torch.randperm(len(logits), generator=generator)[:count]] = True
    return torch.where(chosen.view(-1, 1, 1).to(logits.device), logits, logits.detach())
