"""DIET-SNN: threshold and leak learned in every layer (Rathi, Roy; IEEE TNNLS 2021); our reading of its code."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from typing_extensions import override

from gradspike.methods.base import LayerFacts, Method, Plan
from gradspike.methods.options import MethodConfig, SurrogateName
from gradspike.surrogate import Surrogate


class DietSnnConfig(MethodConfig):
    """`v_threshold` is the initial threshold. `gradient_scale` (gamma) multiplies the surrogate."""

    v_threshold: float = Field(default=1.0, gt=0)
    surrogate: SurrogateName = "triangular"
    gradient_scale: float = Field(default=0.3, gt=0)


class DietSnn(Method):
    """theta[t] = kappa[t] = theta, learned, one per layer; the surrogate is gradient_scale * h(v).

    With the triangle, that is gamma max(0, 1 - |u / theta - 1|) / theta, and the gradient of theta is that of the
    primitive of u / theta - 1. The leak is the neuron's: `neuron=plif` learns it.
    """

    Config: ClassVar[type[DietSnnConfig]] = DietSnnConfig
    config: DietSnnConfig
    sets_threshold = True

    def __init__(self, config: DietSnnConfig, time_steps: int, channels: int) -> None:
        super().__init__(config, time_steps, channels)
        self.threshold = nn.Parameter(torch.tensor(config.v_threshold))

    @property
    @override
    def shape(self) -> Surrogate:
        return scaled(super().shape, self.config.gradient_scale)

    @override
    def plan(self, facts: LayerFacts) -> Plan:
        threshold = self.threshold.to(facts.dtype).expand(facts.time_steps)
        return Plan(thresholds=threshold, widths=threshold)


# Cached, so that engines compile one kernel for all layers.
@cache
def scaled(shape: Surrogate, factor: float) -> Surrogate:
    """A shape whose derivative and primitive are multiplied by a factor."""
    return Surrogate(
        f"{shape.name}_times_{factor:g}",
        partial(_times, shape.derivative, factor),
        partial(_times, shape.primitive, factor),
        smooth=shape.smooth,
        width=shape.width,
    )


def _times(function: Callable[[Tensor, Tensor], Tensor], factor: float, v: Tensor, kappa: Tensor) -> Tensor:
    return factor * function(v, kappa)
