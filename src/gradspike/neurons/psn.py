"""PSN: parallel spiking neurons, without reset: the potential is a linear function of the currents of all steps.

Fang et al., NeurIPS 2023, as in SpikingJelly 2.0. A neuron fires where q >= 0, so its threshold is -bias:

    psn          q[t] = sum_j W[t, j] x[j] + b[t]                 also of later steps j > t
    masked_psn   W[t, j] counts fully for t - k < j <= t, elsewhere by the factor 1 - lambda
    sliding_psn  q[t] = sum_{i < k} w[k-1-i] x[t-i] + b           the same weights at every step

Each describes its potential as a `Mixture`, from which the fast engines compute both passes (`engine.mixed`).
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from typing_extensions import override

from gradspike.neurons.base import Mixture, Neuron, State, Values
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
    """What the three have in common: no state, a threshold of 0 for the potential q, which includes the bias.

    A subclass has `mixture`.
    """

    charges_at_once: ClassVar[bool] = True
    axes: ClassVar[dict[str, str]] = {"weight": "each", "bias": "each"}
    weight: nn.Parameter
    bias: nn.Parameter
    zeros: Tensor

    def __init__(self, config: PsnConfig, time_steps: int, channels: int, v_threshold: float) -> None:
        super().__init__(config, time_steps, channels, v_threshold)
        self.register_buffer("zeros", torch.zeros(time_steps), persistent=False)

    @property
    @override
    def threshold(self) -> Tensor:
        return self.zeros[0]

    @override
    def thresholds(self, time_steps: int, dtype: torch.dtype) -> Tensor:
        return self.zeros.to(dtype)

    @override
    def values(self) -> dict[str, Tensor]:
        return {"weight": self.weight, "bias": self.bias}

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
    def mixture(p: Values, o: Any, time_steps: int) -> Mixture | None:
        return Mixture(p["weight"], p["bias"], [[True] * time_steps] * time_steps)


class MaskedPSN(PSN):
    """PSN with a window of k steps."""

    Config: ClassVar[type[MaskedPsnConfig]] = MaskedPsnConfig

    @staticmethod
    @override
    def mixture(p: Values, o: Any, time_steps: int) -> Mixture | None:
        weight = p["weight"]
        inside = weight.new_ones(time_steps, time_steps).tril().triu(1 - o.k)
        share = (o.mask * inside + (1 - o.mask)).view(time_steps, time_steps, *[1] * (weight.ndim - 2))
        counts = _window(o.k, time_steps) if o.mask == 1 else [[True] * time_steps] * time_steps
        return Mixture(weight * share, p["bias"], counts)


class SlidingPSN(ParallelNeuron):
    """k weights and one bias per layer."""

    Config: ClassVar[type[SlidingPsnConfig]] = SlidingPsnConfig

    def __init__(self, config: SlidingPsnConfig, time_steps: int, channels: int, v_threshold: float) -> None:
        super().__init__(config, time_steps, channels, v_threshold)
        self.weight = nn.Parameter(2.0 ** torch.arange(1 - config.k, 1))
        self.bias = nn.Parameter(torch.tensor(-config.threshold))

    @staticmethod
    @override
    def mixture(p: Values, o: Any, time_steps: int) -> Mixture | None:
        weights, window = p["weight"].unbind(0), _window(o.k, time_steps)
        unused = torch.zeros_like(weights[0])
        rows = [
            torch.stack([weights[o.k - 1 - t + j] if inside else unused for j, inside in enumerate(row)])
            for t, row in enumerate(window)
        ]
        return Mixture(torch.stack(rows), p["bias"].expand(time_steps, *p["bias"].shape), window)


def _window(k: int, time_steps: int) -> list[list[bool]]:
    """Whether step j is one of the last k at step t."""
    return [[t - k < j <= t for j in range(time_steps)] for t in range(time_steps)]
