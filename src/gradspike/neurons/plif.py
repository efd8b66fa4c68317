"""PLIF: leaky integrate-and-fire with a learned decay factor (Fang et al., ICCV 2021)."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from typing_extensions import override

from gradspike.neurons.base import Neuron
from gradspike.neurons.options import NeuronConfig


class PlifConfig(NeuronConfig):
    """`decay` is the initial value of tau."""

    decay: float = Field(default=0.2, gt=0, lt=1)


class PLIF(Neuron):
    """One learned logit per layer: tau = sigmoid(w), initially w = -log(1 / decay - 1)."""

    Config: ClassVar[type[PlifConfig]] = PlifConfig

    def __init__(self, config: PlifConfig) -> None:
        super().__init__()
        self.decay_logit = nn.Parameter(torch.tensor(-math.log(1 / config.decay - 1)))

    @property
    @override
    def decay(self) -> Tensor:
        return torch.sigmoid(self.decay_logit)
