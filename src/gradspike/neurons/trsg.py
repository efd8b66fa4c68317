"""The neuron of TrSG: learned decay, soft reset, and a start at the layer's mean potential (MP-Init).

As in the released code of TrSG: w[-1] is the running mean of the last potential over the elements that fired at least
once. There it is lost when a model is saved; here it is a buffer of the state dict. Its threshold and surrogate are
those of `methods/trsg.py`, with which the authors use it.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from gradspike.neurons.base import State, Values
from gradspike.neurons.options import LeakyConfig
from gradspike.neurons.plif import PLIF


class TrsgNeuronConfig(LeakyConfig):
    """`decay` is the initial tau = 1 - 1 / tau_m; `momentum` is that of the running mean."""

    decay: float = Field(default=0.5, gt=0, lt=1)
    reset: Literal["soft"] = "soft"
    decay_input: bool = True
    fires: Literal["at_threshold", "above_threshold"] = "above_threshold"
    momentum: float = Field(default=0.1, gt=0, le=1)


class TrsgNeuron(PLIF):
    """u[t] = w + k (x - w) with `decay_input`, else (1 - k) w + x, where k = 1 - tau; w[t] = u - theta s."""

    Config: ClassVar[type[TrsgNeuronConfig]] = TrsgNeuronConfig
    config: TrsgNeuronConfig
    axes: ClassVar[dict[str, str]] = {"decay": "", "mean": ""}
    follows_end: ClassVar[bool] = True
    running_mean: Tensor

    def __init__(self, config: TrsgNeuronConfig, time_steps: int, channels: int, v_threshold: float) -> None:
        super().__init__(config, time_steps, channels, v_threshold)
        self.register_buffer("running_mean", torch.tensor(0.0))

    @override
    def values(self) -> dict[str, Tensor]:
        # A copy, because `follow` changes the buffer before the backward pass reads it.
        return {**super().values(), "mean": self.running_mean.clone()}

    @staticmethod
    @override
    def start(x: Tensor, p: Values, o: Any) -> State:
        return (torch.zeros_like(x) + p["mean"],)

    @override
    def follow(self, total: Tensor, count: Tensor) -> None:
        mean = (total / count.clamp_min(1)).to(self.running_mean.dtype)
        self.running_mean.lerp_(mean, self.config.momentum)
