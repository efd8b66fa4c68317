"""KLIF: a leaky integrator whose potential passes a learned gain and a ReLU before it fires (Jiang and Zhang, 2023).

As SpikingJelly 2.0 computes it (KLIFNode):

    u[t] = leak(x[t], w[t-1])     f[t] = max(0, k u[t])     s[t] = 1 if f[t] >= theta
    w[t] = (1 - s) f / c + s v_reset (hard)  |  (f - s theta) / c (soft)      c = k with `scale_reset`, else 1
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from typing_extensions import override

from gradspike.neurons.base import State, Values
from gradspike.neurons.constant import ConstantDecay
from gradspike.neurons.leaky import Leaky, leak
from gradspike.neurons.options import LeakyConfig


class KlifConfig(LeakyConfig):
    """`k` is the initial gain; `scale_reset` divides the potential by it again after each step."""

    decay: float = Field(default=0.5, gt=0, lt=1)
    decay_input: bool = True
    k: float = Field(default=1.0, gt=0)
    scale_reset: bool = False


class KLIF(ConstantDecay, Leaky):
    """Constant decay, one learned gain per layer. f is the potential that methods, probe and traces see."""

    Config: ClassVar[type[KlifConfig]] = KlifConfig
    axes: ClassVar[dict[str, str]] = {"decay": "", "k": ""}

    def __init__(self, config: KlifConfig, time_steps: int, channels: int, v_threshold: float) -> None:
        super().__init__(config, time_steps, channels, v_threshold)
        self.k = nn.Parameter(torch.tensor(config.k))

    @override
    def values(self) -> dict[str, Tensor]:
        return {**super().values(), "k": self.k}

    @staticmethod
    @override
    def charge(x: Tensor, state: State, p: Values, o: Any) -> Tensor:
        (w,) = state
        return torch.relu(p["k"] * leak(x, w, p["decay"], o))

    @staticmethod
    @override
    def reset(u: Tensor, s: Tensor, theta: Tensor, state: State, p: Values, o: Any) -> State:
        scale = p["k"] if o.scale_reset else 1.0
        if o.reset == "soft":
            return ((u - s * theta) / scale,)
        return ((1 - s) * u / scale + s * o.v_reset,)
