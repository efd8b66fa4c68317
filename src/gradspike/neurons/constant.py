"""Neurons with a constant decay factor, which lives on the module's device and in its dtype, but in no state dict."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor
from typing_extensions import override

from gradspike.neurons.base import Neuron
from gradspike.neurons.options import NeuronConfig


class ConstantDecay(Neuron):
    """No parameter: tau is the option `decay`."""

    tau: Tensor

    def __init__(self, config: NeuronConfig, time_steps: int, channels: int, v_threshold: float) -> None:
        super().__init__(config, time_steps, channels, v_threshold)
        self.register_buffer("tau", torch.tensor(_tau(config)), persistent=False)

    @property
    @override
    def decay(self) -> Tensor:
        return self.tau

    @override
    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Self:
        # A change of dtype would keep the rounding of the old one, and to_empty() would leave garbage.
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.tau.fill_(_tau(self.config))
        return self

    @override
    def extra_repr(self) -> str:
        return f"decay={_tau(self.config):g}"


def _tau(config: NeuronConfig) -> float:
    return float(getattr(config, "decay"))  # noqa: B009
