"""GLIF: gated LIF, which learns how much to leak, to gain and to reset (Yao et al., NeurIPS 2022).

As in the authors' released layers. Every value is a sigmoid of a stored parameter, one per channel or layer:

    D = 1 - alpha (1 - tau)
    u[t] = D u[t-1] (1 - gamma s[t-1]) - (1 - alpha) leak + x[t] (1 - beta (1 - conduct[t])) - (1 - gamma) reset s[t-1]

and s[t] = 1 if u[t] > threshold. The linear leak is subtracted at the first step too.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from typing_extensions import override

from gradspike.neurons.base import Neuron, State, Values
from gradspike.neurons.options import NeuronConfig

GATES = {"channel": (0.55, 0.65, 0.55), "layer": (0.45, 0.35, 0.45)}
"""alpha, beta and gamma at the start. The authors' two classes have opposite signs."""


class GlifConfig(NeuronConfig):
    """`decay`, `threshold`, `linear_leak` and `conduct` are initial values, `threshold` also that of the reset.

    `linear_leak` is by default that of the authors' classes: threshold / 8 per channel, threshold / (2 T) per layer.
    `random_gates` draws the three stored gates uniformly from -0.1 to 0.1.
    """

    fires: Literal["at_threshold", "above_threshold"] = "above_threshold"
    per: Literal["channel", "layer"] = "channel"
    decay: float = Field(default=0.25, gt=0, lt=1)
    threshold: float = Field(default=0.5, gt=0, lt=1)
    linear_leak: float | None = Field(default=None, gt=0, lt=1)
    conduct: float = Field(default=0.5, gt=0, lt=1)
    random_gates: bool = False


class GLIF(Neuron):
    """Eight learned values per channel or layer, `conduct` per step as well. It learns its own threshold.

    The dynamics see only products of them, because the backward pass sums a gradient for each of `axes`.
    """

    Config: ClassVar[type[GlifConfig]] = GlifConfig
    axes: ClassVar[dict[str, str]] = {
        **dict.fromkeys(("kept", "leaked", "gamma", "fall"), "C"),
        "gain": "TC",
    }

    def __init__(self, config: GlifConfig, time_steps: int, channels: int, v_threshold: float) -> None:
        super().__init__(config, time_steps, channels, v_threshold)
        shape = (channels,) if config.per == "channel" else ()
        leak = config.linear_leak
        if leak is None:
            leak = config.threshold / (8 if config.per == "channel" else 2 * time_steps)
        starts = {
            **dict(zip(("alpha", "beta", "gamma"), GATES[config.per], strict=True)),
            **{"tau": config.decay, "leak": leak, "reset": config.threshold},
            "threshold": config.threshold,
        }
        stored = {name: torch.full(shape, _logit(value)) for name, value in starts.items()}
        stored["conduct"] = torch.full((time_steps, *shape), _logit(config.conduct))
        if config.random_gates:
            for gate in ("alpha", "beta", "gamma"):
                stored[gate].uniform_(-0.1, 0.1)
        self.stored = nn.ParameterDict(stored)

    @property
    @override
    def threshold(self) -> Tensor:
        return torch.sigmoid(self.stored["threshold"])

    @override
    def values(self) -> dict[str, Tensor]:
        of = {name: torch.sigmoid(value) for name, value in self.stored.items()}
        return {
            "kept": 1 - of["alpha"] * (1 - of["tau"]),
            "leaked": (1 - of["alpha"]) * of["leak"],
            "gamma": of["gamma"],
            "fall": (1 - of["gamma"]) * of["reset"],
            "gain": 1 - of["beta"] * (1 - of["conduct"]),
        }

    @staticmethod
    @override
    def start(x: Tensor, p: Values, o: Any) -> State:
        return (torch.zeros_like(x),)

    @staticmethod
    @override
    def charge(x: Tensor, state: State, p: Values, o: Any) -> Tensor:
        (w,) = state
        return w - p["leaked"] + x * p["gain"]

    @staticmethod
    @override
    def reset(u: Tensor, s: Tensor, theta: Tensor, state: State, p: Values, o: Any) -> State:
        return (p["kept"] * u * (1 - p["gamma"] * s) - p["fall"] * s,)


def _logit(value: float) -> float:
    return math.log(value / (1 - value))
