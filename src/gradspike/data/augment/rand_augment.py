"""RandAugment (Cubuk et al., NeurIPS 2020) as in timm, with separate operations for every sample of a batch.

timm's increasing operations (inc1), filled with the mean colour, bicubic. The magnitude of each is drawn from a normal
distribution and kept within 0 and 10.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradspike.data.augment import pillow
from gradspike.data.augment.counter_random import CounterRandom
from gradspike.data.augment.draws import Draw
from gradspike.data.options.rand_augment import LARGEST_MAGNITUDE, RandPolicy

Floats = NDArray[np.float64]
HostRandom = CounterRandom[NDArray[np.int64]]

DRAWS = 8
"""Numbers reserved for each operation in turn."""

GREY = 128
"""timm's colour of pixels without a source where the mean is not known."""

GEOMETRY = ("Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY")
FACTORS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Color": pillow.color,
    "Contrast": pillow.contrast,
    "Brightness": pillow.brightness,
    "Sharpness": pillow.sharpness,
}
WITHOUT_AMOUNT: dict[str, Callable[[Tensor], Tensor]] = {
    "AutoContrast": pillow.autocontrast,
    "Equalize": pillow.equalize,
    "Invert": pillow.invert,
}
LEVELS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Posterize": pillow.posterize,
    "Solarize": pillow.solarize,
    "SolarizeAdd": pillow.solarize_add,
}


class RandAugment:
    """A policy for images. fill: the colour of pixels without a source, 0 to 255 for each channel."""

    def __init__(self, policy: RandPolicy, fill: tuple[int, ...]) -> None:
        self.policy = policy
        self.fill = fill

    def __call__(self, pictures: Tensor, random: HostRandom) -> Tensor:
        """Augment uint8 [B, 1 or 3, H, W]. random: random numbers of the B samples, on the host."""
        pictures = pictures.clone()
        for place in range(self.policy.count):
            operation, level, sign = self.choose(random, place)
            for number, name in enumerate(self.policy.operations):
                chosen = np.flatnonzero(operation == number)
                if len(chosen):
                    index = torch.from_numpy(chosen).to(pictures.device)
                    amounts = amount(name, level[chosen], sign[chosen])
                    pictures[index] = apply(name, pictures[index], amounts, self.fill)
        return pictures

    def choose(self, random: HostRandom, place: int) -> tuple[NDArray[np.int64], Floats, Floats]:
        """The number of each sample's operation (-1: none), its magnitude from 0 to 10, and its sign (1 or -1)."""
        first = Draw.RAND_AUGMENT + DRAWS * place
        operation = random.integers(first, 0, len(self.policy.operations) - 1)
        applied = random.uniform(first + 1) < self.policy.probability
        sign = (1.0 - 2.0 * random.integers(first + 2, 0, 1)).astype(np.float64)
        # Box and Muller's normal numbers; 1 - u is above 0.
        normal = np.sqrt(-2 * np.log(1 - random.uniform(first + 3))) * np.cos(2 * np.pi * random.uniform(first + 4))
        level = np.clip(self.policy.magnitude + self.policy.spread * normal, 0, LARGEST_MAGNITUDE).astype(np.float64)
        return np.where(applied, operation, np.int64(-1)), level, sign


def amount(name: str, level: Floats, sign: Floats) -> Floats:
    """What an operation's function takes, for magnitudes from 0 to 10: timm's scales.

    Rotation in degrees, shear in pixels per pixel, translation as a share of the side; a factor; bits, a threshold or
    levels to add, which are whole numbers.
    """
    share = level / LARGEST_MAGNITUDE
    if name in FACTORS:
        return np.maximum(0.1, 1.0 + sign * share * 0.9)
    if name in GEOMETRY:
        return sign * share * {"Rotate": 30.0, "Shear": 0.3, "Translate": 0.45}[name.rstrip("XY")]
    if name == "Posterize":
        return 4 - np.floor(share * 4)
    if name == "Solarize":
        return 256 - np.floor(share * 256)
    return np.floor(share * 110) if name == "SolarizeAdd" else np.zeros_like(level)


def apply(name: str, pictures: Tensor, amounts: Floats, fill: tuple[int, ...]) -> Tensor:
    """Apply one operation to uint8 [n, C, H, W], each image with its own amount."""
    if name in WITHOUT_AMOUNT:
        return WITHOUT_AMOUNT[name](pictures)
    if name in GEOMETRY:
        height, width = pictures.shape[-2:]
        matrices = torch.from_numpy(_matrices(name, amounts, height, width)).to(pictures.device)
        return pillow.affine(pictures, matrices, torch.tensor(fill, dtype=torch.uint8, device=pictures.device))
    return (FACTORS | LEVELS)[name](pictures, torch.from_numpy(amounts).to(pictures.device))


def _matrices(name: str, amounts: Floats, height: int, width: int) -> Floats:
    """The affine map from a pixel to its source, [n, 6]."""
    zero, one = np.zeros_like(amounts), np.ones_like(amounts)
    if name == "ShearX":
        columns = (one, amounts, zero, zero, one, zero)
    elif name == "ShearY":
        columns = (one, zero, zero, amounts, one, zero)
    elif name == "TranslateX":
        columns = (one, zero, amounts * width, zero, one, zero)
    elif name == "TranslateY":
        columns = (one, zero, zero, zero, one, amounts * height)
    else:  # around the centre
        cosine, sine = np.cos(-np.radians(amounts)), np.sin(-np.radians(amounts))
        x, y = width / 2, height / 2
        columns = (cosine, sine, x - cosine * x - sine * y, -sine, cosine, y + sine * x - cosine * y)
    return np.stack(columns, axis=1)
