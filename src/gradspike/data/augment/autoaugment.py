"""AutoAugment (Cubuk et al., CVPR 2019) with a separate sub-policy for every sample of a batch."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradspike.data.augment.counter_random import CounterRandom
from gradspike.data.augment.draws import Draw
from gradspike.data.augment.picture_operations import PictureOperations
from gradspike.data.augment.policies import MAGNITUDES, POLICIES, SIGNED


class AutoAugment:
    """The policy `name` for images of one size, equal to torchvision's AutoAugment with its default fill."""

    def __init__(self, name: str, height: int, width: int) -> None:
        self.policy = POLICIES[name]
        operations: dict[tuple[str, float], int] = {("Identity", 0.0): 0}
        # The operation to apply, by pair, position in the pair, and sign of the magnitude (0: negative).
        self._numbers = np.zeros((len(self.policy), 2, 2), dtype=np.int64)
        for pair, members in enumerate(self.policy):
            for place, (operation, _, step) in enumerate(members):
                size = magnitude(operation, step, height, width)
                for sign in (0, 1):
                    signed = -size if operation in SIGNED and sign == 0 else size
                    self._numbers[pair, place, sign] = operations.setdefault((operation, signed), len(operations))
        self._probabilities = np.array([[operation[1] for operation in pair] for pair in self.policy])
        self.operations = PictureOperations(list(operations))

    def __call__(self, pictures: Tensor, random: CounterRandom[NDArray[np.int64]]) -> Tensor:
        """Augment uint8 [B, 1 or 3, H, W]. random: random numbers of the B samples, on the host."""
        return self.operations.apply(pictures, *self.choose(random))

    def choose(self, random: CounterRandom[NDArray[np.int64]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The indices of each sample's first and second operation, int64 [B] each; 0: none."""
        pair = random.integers(Draw.POLICY, 0, len(self.policy) - 1)
        chosen = []
        for place, (applied, sign) in enumerate(
            ((Draw.FIRST_APPLIED, Draw.FIRST_SIGN), (Draw.SECOND_APPLIED, Draw.SECOND_SIGN))
        ):
            number = self._numbers[pair, place, random.integers(sign, 0, 1)]
            chosen.append(np.where(random.uniform(applied) < self._probabilities[pair, place], number, 0))
        return chosen[0], chosen[1]


def magnitude(operation: str, step: int | None, height: int, width: int) -> float:
    """The unsigned magnitude of a step from 0 to 9, in torchvision's units and float32."""
    largest = {
        "ShearX": 0.3,
        "ShearY": 0.3,
        "TranslateX": 150.0 / 331.0 * width,
        "TranslateY": 150.0 / 331.0 * height,
        "Rotate": 30.0,
        "Brightness": 0.9,
        "Color": 0.9,
        "Contrast": 0.9,
        "Sharpness": 0.9,
    }
    if step is None:
        return 0.0
    if operation == "Posterize":
        return float(8 - round(step / ((MAGNITUDES - 1) / 4)))
    if operation == "Solarize":
        return float(torch.linspace(1.0, 0.0, MAGNITUDES)[step])
    return float(torch.linspace(0.0, largest[operation], MAGNITUDES)[step])
