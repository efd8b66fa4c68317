"""Dspike: a tanh on unit support whose temperature sets its sharpness (Li et al., NeurIPS 2021)."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from typing_extensions import override

from gradspike.methods.base import LayerFacts, Method, Plan
from gradspike.methods.options import MIN_WIDTH, MethodConfig
from gradspike.surrogate import UNIT_DSPIKE, Surrogate


class DspikeConfig(MethodConfig):
    """`temperature` (b) is the factor of tanh's argument per unit of the potential."""

    surrogate: Literal["dspike"] = "dspike"
    temperature: float = Field(default=3.0, ge=MIN_WIDTH)


class Dspike(Method):
    """theta[t] = V_th; phi(v) = tanh(b v) / (2 tanh(b / 2)) + 1/2 on |v| <= 1/2, with a constant temperature b.

    The support does not follow the temperature, so h(0) = b / (2 tanh(b / 2)), at least 1.
    """

    Config: ClassVar[type[DspikeConfig]] = DspikeConfig
    config: DspikeConfig

    @property
    @override
    def shape(self) -> Surrogate:
        return UNIT_DSPIKE

    @override
    def plan(self, facts: LayerFacts) -> Plan:
        return Plan(thresholds=facts.full(facts.v_threshold), widths=facts.full(self.config.temperature))
