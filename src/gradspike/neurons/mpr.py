"""MPR: an integrator that redistributes its potential around the threshold (Re-Loss; Guo et al., ECCV 2022).

As in the authors' released code, where u fires through q = MPR(u), and the reset subtracts 1 from u:

    q = u^(1/3) for u > 1     1 - (1 - u)^(1/3) for u < 0     tanh(3 (u - 1/2)) / (2 tanh 1.5) + 1/2 between
    s = 1 if q > 1/2          its gradient: ds/dq = 1 for 0 <= q <= 1
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from gradspike.neurons.base import State, Values
from gradspike.neurons.constant import ConstantDecay
from gradspike.neurons.options import NeuronConfig
from gradspike.surrogate import Surrogate


class MprConfig(NeuronConfig):
    """`decay` is tau, 1 in the paper. The threshold is 1/2 and the reset soft, as the redistribution assumes."""

    fires: Literal["above_threshold"] = "above_threshold"
    decay: float = Field(default=1.0, gt=0, le=1)


class MPR(ConstantDecay):
    """u[t] = tau w[t-1] + x[t]; w[t] = u[t] - s[t]."""

    Config: ClassVar[type[MprConfig]] = MprConfig
    has_own_gradient: ClassVar[bool] = True

    def __init__(self, config: MprConfig, time_steps: int, channels: int, v_threshold: float) -> None:
        super().__init__(config, time_steps, channels, v_threshold)
        self.register_buffer("fixed_threshold", torch.tensor(0.5), persistent=False)

    @property
    @override
    def threshold(self) -> Tensor:
        return self.get_buffer("fixed_threshold")

    @staticmethod
    @override
    def fire(u: Tensor, theta: Tensor, kappa: Tensor, surrogate: Surrogate, p: Values, o: Any) -> tuple[Tensor, Tensor]:
        # q exceeds 1/2 where u does, and it is between 0 and 1, where its gradient counts, only where u is.
        q = torch.tanh(3 * (u.clamp(0, 1) - 0.5)) / (2 * math.tanh(1.5)) + 0.5
        return (u > 0.5).to(u.dtype), q.clamp(0, 1)

    @staticmethod
    @override
    def reset(u: Tensor, s: Tensor, theta: Tensor, state: State, p: Values, o: Any) -> State:
        return (u - s,)
