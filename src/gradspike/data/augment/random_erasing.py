"""Random erasing (Zhong et al., AAAI 2020) as in timm: one rectangle of some samples, after normalisation."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from gradspike.data.augment.counter_random import CounterRandom, mix64
from gradspike.data.augment.draws import Draw

SMALLEST_AREA, LARGEST_AREA = 0.02, 1 / 3
SMALLEST_ASPECT = 0.3
ATTEMPTS = 10
Fill = Literal["zero", "channel", "pixel"]


def random_erasing(values: Tensor, probability: float, fill: Fill, random: CounterRandom[Tensor]) -> Tensor:
    """Erase a rectangle in a share `probability` of the images, in place: float32 [B, C, H, W], normalised.

    Its area is uniform from 2 to 33 % of the image, the logarithm of its aspect ratio uniform from 0.3 to 1 / 0.3, its
    position uniform. zero: the mean colour; channel: a normal number for each channel; pixel: for each value.
    """
    height, width = values.shape[-2:]
    top, left, tall, wide = rectangles(random, height, width)
    applied = random.uniform(Draw.ERASE) < probability
    inside = []
    for first, size, side in ((top, tall, height), (left, wide, width)):
        place = torch.arange(side, device=values.device)
        inside.append((place >= first[:, None]) & (place < (first + size)[:, None]))
    erased = inside[0][:, None, :, None] & inside[1][:, None, None, :] & applied.view(-1, 1, 1, 1)
    if fill == "zero":
        return values.masked_fill_(erased, 0.0)
    shape = values.shape[1:] if fill == "pixel" else (values.shape[1], 1, 1)
    rows = applied.nonzero()[:, 0]  # noise for the others would take most of the time
    noise = _normal(CounterRandom(random.key[rows]), shape).to(values.dtype)
    values[rows] = torch.where(erased[rows], noise, values[rows])
    return values


def rectangles(random: CounterRandom[Tensor], height: int, width: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Row and column of the first pixel, rows and columns of a rectangle for each sample: int64 [B] each.

    The first of ten attempts that is smaller than the image along both axes, else of size 0.
    """
    found = [torch.zeros_like(random.key) for _ in range(4)]
    missing = torch.ones_like(random.key, dtype=torch.bool)
    for attempt in range(ATTEMPTS):
        draw = Draw.ERASE + 1 + 4 * attempt
        area = SMALLEST_AREA + (LARGEST_AREA - SMALLEST_AREA) * random.uniform(draw).double()
        aspect = ((2 * random.uniform(draw + 1).double() - 1) * -math.log(SMALLEST_ASPECT)).exp()
        tall = (area * height * width * aspect).sqrt().round().long()
        wide = (area * height * width / aspect).sqrt().round().long()
        fits = (tall < height) & (wide < width)
        # A position of as many as there are, each as probable as another to 2**-24.
        top = (random.uniform(draw + 2).double() * (height - tall + 1)).long()
        left = (random.uniform(draw + 3).double() * (width - wide + 1)).long()
        chosen = missing & fits
        found = [torch.where(chosen, new, old) for new, old in zip((top, left, tall, wide), found, strict=True)]
        missing &= ~fits
    return found[0], found[1], found[2], found[3]


def _normal(random: CounterRandom[Tensor], shape: torch.Size | tuple[int, ...]) -> Tensor:
    """Standard normal numbers [B, *shape] by Box and Muller's formula: float64."""
    count = math.prod(shape)
    cell = torch.arange(count, device=random.key.device)
    cells: CounterRandom[Tensor] = CounterRandom(mix64(random.bits(Draw.ERASE_NOISE)[:, None] + cell))
    first, second = (cells.uniform(draw).double() for draw in (0, 1))
    normal: Tensor = (-2 * (1 - first).log()).sqrt() * (2 * math.pi * second).cos()
    return normal.view(-1, *shape)
