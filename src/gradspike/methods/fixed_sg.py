"""Fixed surrogate gradient: the baseline."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from typing_extensions import override

from gradspike.methods.base import LayerFacts, Method, Plan
from gradspike.methods.options import MIN_WIDTH, MethodConfig


class FixedSgConfig(MethodConfig):
    """Constant threshold and constant surrogate width."""

    v_threshold: float = Field(default=1.0, gt=0)
    width: float = Field(default=1.0, ge=MIN_WIDTH)


class FixedSg(Method):
    """theta[t] = V_th, kappa[t] = `width` (1 in the papers that compare with it)."""

    Config: ClassVar[type[FixedSgConfig]] = FixedSgConfig
    config: FixedSgConfig
    sets_width = False

    @override
    def plan(self, facts: LayerFacts) -> Plan:
        return Plan(thresholds=facts.full(facts.v_threshold), widths=facts.full(self.config.width), constant=True)
