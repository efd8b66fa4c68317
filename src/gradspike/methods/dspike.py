"""Dspike: a tanh on unit support whose temperature sets its sharpness (Li et al., NeurIPS 2021)."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor
from typing_extensions import override

from gradspike.methods.base import Differences, LayerFacts, Method, Plan
from gradspike.methods.options import MIN_WIDTH, MethodConfig
from gradspike.surrogate import UNIT_DSPIKE, Surrogate


class DspikeConfig(MethodConfig):
    """`temperature` (b) is the factor of tanh's argument per unit of the potential.

    With `choose_every`, b is chosen at the start of every so many epochs, among b and b +- `temperature_step`, by
    finite differences of the loss: `difference` is that of a weight of the network's first layer, `weights` the number
    of weights to compare, drawn at random (None: all).
    """

    surrogate: Literal["dspike"] = "dspike"
    temperature: float = Field(default=3.0, ge=MIN_WIDTH)
    choose_every: PositiveInt | None = None
    temperature_step: float = Field(default=0.2, gt=0)
    difference: float = Field(default=0.1, gt=0)
    weights: PositiveInt | None = None

    @model_validator(mode="after")
    def _weights_are_compared(self) -> Self:
        if self.weights is not None and self.choose_every is None:
            raise ValueError(f"weights={self.weights}: needs choose_every, as in method=dspike_adaptive")
        return self


class Dspike(Method):
    """theta[t] = V_th; phi(v) = tanh(b v) / (2 tanh(b / 2)) + 1/2 on |v| <= 1/2, with one temperature b for all layers.

    The support does not follow the temperature, so h(0) = b / (2 tanh(b / 2)), at least 1.
    """

    Config: ClassVar[type[DspikeConfig]] = DspikeConfig
    config: DspikeConfig

    temperature: Tensor

    def __init__(self, config: DspikeConfig, time_steps: int, channels: int) -> None:
        super().__init__(config, time_steps, channels)
        chosen = config.choose_every is not None
        self.register_buffer("temperature", torch.tensor(config.temperature), persistent=chosen)

    @property
    @override
    def shape(self) -> Surrogate:
        return UNIT_DSPIKE

    @override
    def plan(self, facts: LayerFacts) -> Plan:
        return Plan(facts.full(facts.v_threshold), widths=self.temperature.to(facts.dtype).repeat(facts.time_steps))

    @override
    def quantities(self) -> dict[str, Tensor]:
        return {"temperature": self.temperature}

    @property
    @override
    def differences(self) -> Differences | None:
        every = self.config.choose_every
        return None if every is None else Differences(every, self.config.difference, self.config.weights)

    @override
    def candidates(self) -> list[float]:
        now, step = self.temperature.item(), self.config.temperature_step
        return [value for value in (now, now + step, now - step) if value >= MIN_WIDTH]

    @override
    def take(self, candidate: float) -> None:
        self.temperature.fill_(candidate)
