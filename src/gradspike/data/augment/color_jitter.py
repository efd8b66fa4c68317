"""Colour jitter as in timm and torchvision: brightness, contrast and saturation, for each sample in random order."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradspike.data.augment import pillow
from gradspike.data.augment.counter_random import CounterRandom
from gradspike.data.augment.draws import Draw

OPERATIONS = (pillow.brightness, pillow.contrast, pillow.color)
ORDERS = np.array(list(permutations(range(len(OPERATIONS)))))


def color_jitter(pictures: Tensor, amount: float, random: CounterRandom[NDArray[np.int64]]) -> Tensor:
    """Scale brightness, contrast and saturation of uint8 [B, 1 or 3, H, W] by factors from 1 - amount to 1 + amount.

    random: random numbers of the B samples, on the host. Factors are at least 0; grey images have no saturation.
    """
    pictures = pictures.clone()
    order = ORDERS[random.integers(Draw.JITTER_ORDER, 0, len(ORDERS) - 1)]
    low = max(0.0, 1 - amount)
    draws = (Draw.JITTER_BRIGHTNESS, Draw.JITTER_CONTRAST, Draw.JITTER_SATURATION)
    factors = [low + (1 + amount - low) * random.uniform(draw) for draw in draws]
    for place in range(len(OPERATIONS)):
        for number, operation in enumerate(OPERATIONS):
            chosen = np.flatnonzero(order[:, place] == number)
            if len(chosen):
                index = torch.from_numpy(chosen).to(pictures.device)
                pictures[index] = operation(pictures[index], torch.from_numpy(factors[number][chosen]).to(index.device))
    return pictures
