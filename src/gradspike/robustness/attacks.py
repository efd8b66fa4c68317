"""Attacks on pixels that stay within epsilon of the image (in the maximum norm) and within 0 to 1.

    fgsm   one step of epsilon along the sign of the gradient            Goodfellow et al., ICLR 2015
    pgd    steps along the sign from a random start, projected back      Madry et al., ICLR 2018

Every sample is attacked on its own: its result does not depend on the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from gradspike.data.augment.counter_random import CounterRandom
from gradspike.robustness.options import REACH

Gradient = Callable[[Tensor], Tensor]
"""Gradient of the loss of each sample's true class with respect to its pixels, both [B, C, H, W]."""


def fgsm(pixels: Tensor, gradient: Gradient, epsilon: float) -> Tensor:
    """The attacked images of `pixels` [B, C, H, W], of 0 to 1."""
    return (pixels + epsilon * gradient(pixels).sign()).clamp(0, 1)


def pgd(
    pixels: Tensor,
    gradient: Gradient,
    epsilon: float,
    *,
    steps: int,
    step_size: float | None,
    restarts: int,
    seed: int,
    index: Tensor,
) -> Iterator[Tensor]:
    """Yield the attacked images of each restart.

    Args:
        pixels: images [B, C, H, W] of 0 to 1.
        gradient: see `Gradient`.
        epsilon: largest change of a pixel.
        steps: steps after the random start.
        step_size: change of a pixel in a step; None: 2.5 epsilon / steps.
        restarts: number of random starts.
        seed: of the starts; a start depends on seed, restart and sample alone.
        index: int64 [B], the samples' indices in the data set.
    """
    length = REACH * epsilon / steps if step_size is None else step_size
    for restart in range(restarts):
        start = pixels + epsilon * (2 * uniform(pixels, seed, restart, index) - 1)
        attacked = start.clamp(0, 1)
        for _ in range(steps):
            attacked = attacked + length * gradient(attacked).sign()
            attacked = torch.clamp(attacked, pixels - epsilon, pixels + epsilon).clamp(0, 1)
        yield attacked


def uniform(like: Tensor, seed: int, moment: int, index: Tensor, draw: int = 0) -> Tensor:
    """Numbers in [0, 1) in the shape of `like` [B, ...], from (seed, moment, index of the sample, element, draw)."""
    element = torch.arange(like[0].numel(), device=like.device)
    key = CounterRandom.per_sample(seed, moment, index.to(like.device)).key
    numbers: Tensor = CounterRandom.per_event(key.unsqueeze(1), element).uniform(draw)
    return numbers.view(like.shape)
