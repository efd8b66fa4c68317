"""Neuromorphic data augmentation (Li et al., ECCV 2022): roll, rotation, shear or cutout, drawn for each sample.

Magnitudes follow the released code for CIFAR10-DVS at 48x48 pixels: roll by up to 5 pixels along both axes, rotation
and horizontal shear by up to 30 degrees, nearest neighbour, filled with zeros. The released loaders draw from these
three. The paper also uses cutout, which the code contains but does not use; here its square covers a third of the side
(16 of 48 pixels). The paper's horizontal flip is the option `flip`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gradspike.data.augment.counter_random import CounterRandom
from gradspike.data.augment.draws import Draw
from gradspike.data.augment.resample import square

ROLL, ROTATE, SHEAR, CUTOUT = range(4)
LARGEST_ROLL = 5
LARGEST_ANGLE = 30.0
CUTOUT_SHARE = 3


def neuromorphic(inputs: Tensor, random: CounterRandom[Tensor]) -> Tensor:
    """Augment each sample of [B, ..., H, W] (any type) independently, with the same augmentation for all its frames."""
    choice = random.integers(Draw.NDA_CHOICE, ROLL, CUTOUT)
    height, width = inputs.shape[-2:]
    y, x = _source(choice, random, height, width)
    rolled = (choice == ROLL).view(-1, 1, 1)
    y, x = torch.where(rolled, y % height, y), torch.where(rolled, x % width, x)
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    blank = square(random, (Draw.NDA_Y, Draw.NDA_X), min(height, width) // CUTOUT_SHARE, height, width)
    blank &= (choice == CUTOUT).view(-1, 1, 1)
    place = y.clamp(0, height - 1) * width + x.clamp(0, width - 1)
    flat = inputs.flatten(1, -3).flatten(2)
    moved = flat.gather(2, place.flatten(1)[:, None].expand_as(flat))
    return moved.mul_((inside & ~blank).flatten(1)[:, None]).view(inputs.shape)


def _source(choice: Tensor, random: CounterRandom[Tensor], height: int, width: int) -> tuple[Tensor, Tensor]:
    """Row and column (int64 [B, H, W], possibly outside the frame) of the source of each pixel."""
    angle = torch.deg2rad((2 * random.uniform(Draw.NDA_ANGLE).double() - 1) * LARGEST_ANGLE)
    turned, sheared = choice == ROTATE, choice == SHEAR
    # As in torchvision: positive rotations are anticlockwise; a shear shifts each row by tan(angle) more.
    cosine = torch.where(turned, angle.cos(), 1.0).view(-1, 1, 1)
    sine = torch.where(turned, angle.sin(), 0.0).view(-1, 1, 1)
    slope = torch.where(sheared, angle.tan(), 0.0).view(-1, 1, 1)
    y = torch.arange(height, device=angle.device, dtype=torch.float64).view(1, -1, 1) - (height - 1) / 2
    x = torch.arange(width, device=angle.device, dtype=torch.float64).view(1, 1, -1) - (width - 1) / 2
    from_x = cosine * x - sine * y + slope * y + (width - 1) / 2
    from_y = sine * x + cosine * y + (height - 1) / 2
    rolled = choice == ROLL
    down, right = (
        torch.where(rolled, random.integers(draw, -LARGEST_ROLL, LARGEST_ROLL), 0).view(-1, 1, 1)
        for draw in (Draw.NDA_Y, Draw.NDA_X)
    )
    return from_y.round().long() - down, from_x.round().long() - right
