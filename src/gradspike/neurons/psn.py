"""PSN: parallel spiking neurons, without reset: the potential is a linear function of the currents of all steps.

Fang et al., NeurIPS 2023, as in SpikingJelly 2.0. A neuron fires where q >= 0, so its threshold is -bias:

    psn          q[t] = sum_j W[t, j] x[j] + b[t]                 also of later steps j > t
    masked_psn   W[t, j] counts fully for t - k < j <= t, elsewhere by the factor 1 - lambda
    sliding_psn  q[t] = sum_{i < k} w[k-1-i] x[t-i] + b           the same weights at every step
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from typing_extensions import override

from gradspike.neurons.base import Neuron, State, Values
from gradspike.neurons.options import NeuronConfig


class PsnConfig(NeuronConfig):
    """`threshold` is the initial one; the bias starts at minus this value. There is no reset, and no state to cut."""

    detach_reset: Literal[False] = False
    gradient: Literal["bptt"] = "bptt"
    sltt_steps: Literal[None] = None
    threshold: float = Field(default=1.0, gt=0)


class WindowedPsnConfig(PsnConfig):
    """`k` steps count, the current one included."""

    k: int = Field(default=2, ge=1)

    @override
    def check_time_steps(self, time_steps: int) -> None:
        super().check_time_steps(time_steps)
        if self.k > time_steps:
            raise ValueError(f"k={self.k}: must be at most time_steps={time_steps}")


class MaskedPsnConfig(WindowedPsnConfig):
    """`mask` is lambda: 0 is a plain PSN, 1 masks all other steps."""

    mask: float = Field(default=1.0, ge=0, le=1)


class SlidingPsnConfig(WindowedPsnConfig):
    """The weights start as 1, 1/2, 1/4, ... back in time."""


class ParallelNeuron(Neuron):
    """What the three have in common: no state, a threshold of 0 for the potential q, which includes the bias."""

    charges_at_once: ClassVar[bool] = True
    axes: ClassVar[dict[str, str]] = {"weight": "each", "bias": "each"}

    def __init__(self, config: PsnConfig, time_steps: int, channels: int, v_threshold: float) -> None:
        super().__init__(config, time_steps, channels, v_threshold)
        self.register_buffer("zero", torch.tensor(0.0), persistent=False)

    @property
    @override
    def threshold(self) -> Tensor:
        return self.get_buffer("zero")

    @override
    def values(self) -> dict[str, Tensor]:
        return {"weight": self.get_parameter("weight"), "bias": self.get_parameter("bias")}

    @staticmethod
    @override
    def start(x: Tensor, p: Values, o: Any) -> State:
        return ()

    @staticmethod
    @override
    def reset(u: Tensor, s: Tensor, theta: Tensor, state: State, p: Values, o: Any) -> State:
        return ()


class PSN(ParallelNeuron):
    """One [T, T] matrix and one bias per step and layer."""

    Config: ClassVar[type[PsnConfig]] = PsnConfig

    def __init__(self, config: PsnConfig, time_steps: int, channels: int, v_threshold: float) -> None:
        super().__init__(config, time_steps, channels, v_threshold)
        self.weight = nn.Parameter(torch.empty(time_steps, time_steps))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        self.bias = nn.Parameter(torch.full((time_steps,), -config.threshold))

    @staticmethod
    @override
    def charge_all(currents: Sequence[Tensor], p: Values, o: Any) -> list[Tensor]:
        rows = [row.unbind(0) for row in p["weight"].unbind(0)]
        biases = p["bias"].unbind(0)
        return [_weighted(row, currents) + bias for row, bias in zip(rows, biases, strict=True)]


class MaskedPSN(PSN):
    """PSN with a window of k steps."""

    Config: ClassVar[type[MaskedPsnConfig]] = MaskedPsnConfig

    def __init__(self, config: MaskedPsnConfig, time_steps: int, channels: int, v_threshold: float) -> None:
        super().__init__(config, time_steps, channels, v_threshold)
        window = torch.ones(time_steps, time_steps).tril().triu(1 - config.k)
        self.register_buffer("share", config.mask * window + (1 - config.mask), persistent=False)

    @override
    def values(self) -> dict[str, Tensor]:
        return {"weight": self.weight * self.get_buffer("share"), "bias": self.bias}


class SlidingPSN(ParallelNeuron):
    """k weights and one bias per layer."""

    Config: ClassVar[type[SlidingPsnConfig]] = SlidingPsnConfig

    def __init__(self, config: SlidingPsnConfig, time_steps: int, channels: int, v_threshold: float) -> None:
        super().__init__(config, time_steps, channels, v_threshold)
        self.weight = nn.Parameter(2.0 ** torch.arange(1 - config.k, 1))
        self.bias = nn.Parameter(torch.tensor(-config.threshold))

    @staticmethod
    @override
    def charge_all(currents: Sequence[Tensor], p: Values, o: Any) -> list[Tensor]:
        weights = p["weight"].unbind(0)
        potentials = []
        for t in range(len(currents)):
            seen = min(o.k, t + 1)
            potentials.append(_weighted(weights[o.k - seen :], currents[t + 1 - seen : t + 1]) + p["bias"])
        return potentials


def _weighted(weights: Sequence[Tensor], currents: Sequence[Tensor]) -> Tensor:
    total = weights[0] * currents[0]
    for weight, current in zip(weights[1:], currents[1:], strict=True):
        total = total + weight * current
    return total
