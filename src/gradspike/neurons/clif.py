"""CLIF: complementary LIF, whose reset grows with a second, slower state (Huang et al., ICML 2024).

As in the authors' single-step class, which their training uses:

    u[t] = tau w[t-1] + x[t]                    m[t] = m[t-1] sig((1 - tau) u[t]) + s[t]
    w[t] = u[t] - s[t] (theta + sig(m[t]))

Their multi-step class, which their training does not use, replaces m by sig(m) after each step: `in_place`.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from gradspike.neurons.base import State, Values
from gradspike.neurons.constant import ConstantDecay
from gradspike.neurons.options import NeuronConfig


class ClifConfig(NeuronConfig):
    """`decay` is tau = 1 - 1 / tau_m. `in_place` is the variant of the authors' multi-step class."""

    decay: float = Field(default=0.5, gt=0, lt=1)
    in_place: bool = False


class CLIF(ConstantDecay):
    """Constant decay, nothing learned. The reset is soft and has no option, because the reset is what CLIF changes."""

    Config: ClassVar[type[ClifConfig]] = ClifConfig

    @staticmethod
    @override
    def start(x: Tensor, p: Values, o: Any) -> State:
        return torch.zeros_like(x), torch.zeros_like(x)

    @staticmethod
    @override
    def charge(x: Tensor, state: State, p: Values, o: Any) -> Tensor:
        w, _ = state
        return p["decay"] * w + x

    @staticmethod
    @override
    def reset(u: Tensor, s: Tensor, theta: Tensor, state: State, p: Values, o: Any) -> State:
        _, m = state
        m = m * torch.sigmoid((1 - p["decay"]) * u) + s
        complement = torch.sigmoid(m)
        return u - s * (theta + complement), complement if o.in_place else m
