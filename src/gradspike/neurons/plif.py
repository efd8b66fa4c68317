"""PLIF: leaky integrate-and-fire with a learned decay factor (Fang et al., ICCV 2021)."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import override

from gradspike.neurons.leaky import Leaky
from gradspike.neurons.options import LeakyConfig


class PLIF(Leaky):
    """One learned logit per layer: tau = sigmoid(w), initially w = -log(1 / decay - 1)."""

    Config: ClassVar[type[LeakyConfig]] = LeakyConfig

    def __init__(self, config: LeakyConfig, time_steps: int, channels: int, v_threshold: float) -> None:
        super().__init__(config, time_steps, channels, v_threshold)
        self.decay_logit = nn.Parameter(torch.tensor(-math.log(1 / config.decay - 1)))

    @property
    @override
    def decay(self) -> Tensor:
        return torch.sigmoid(self.decay_logit)
