"""Random damage to samples, which depends on (seed, sample) alone. Greater levels contain the damage of smaller ones.

noise        a Gaussian of standard deviation `level` is added to every pixel of 0 to 1, then clipped to 0 to 1
event_drop   every event is lost with probability `level`
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gradspike.data.augment.counter_random import CounterRandom
from gradspike.robustness.attacks import uniform

MOST_EVENTS = 2**15
"""More than a pixel can have in a frame: counts are int16 at most."""


def noise(pixels: Tensor, level: float, seed: int, index: Tensor) -> Tensor:
    """Noisy images of `pixels` [B, C, H, W] of 0 to 1; index int64 [B]."""
    # Box and Muller 1958. 1 - u is above 0, so its logarithm is finite.
    length = (-2 * torch.log1p(-uniform(pixels, seed, 0, index))).sqrt()
    normal = length * torch.cos(2 * math.pi * uniform(pixels, seed, 0, index, draw=1))
    return (pixels + level * normal).clamp(0, 1)


def event_drop(counts: Tensor, level: float, seed: int, index: Tensor) -> Tensor:
    """Counts of the events that are left of `counts` [B, T, 2, H, W] (uint8 or int16), in the same type."""
    keys = CounterRandom.per_sample(seed, 0, index.to(counts.device)).key
    left = torch.zeros_like(counts)
    for sample, key, kept in zip(counts, keys, left, strict=True):
        flat = sample.flatten()
        places = flat.nonzero().squeeze(1)
        many = flat[places].long()
        events = places.repeat_interleave(many)
        first = (many.cumsum(0) - many).repeat_interleave(many)
        within = torch.arange(len(events), device=counts.device) - first  # number of an event at its place
        random = CounterRandom.per_event(key, events * MOST_EVENTS + within).uniform(0)
        survivors = events[random >= level]
        kept.view(-1).copy_(torch.bincount(survivors, minlength=flat.numel()))
    return left
