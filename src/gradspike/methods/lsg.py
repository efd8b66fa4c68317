"""LSG: a learnable surrogate gradient through the decay factor (Lian et al., IJCAI 2023)."""

from __future__ import annotations

from typing import ClassVar

from typing_extensions import override

from gradspike.methods.base import LayerFacts, Method, Plan
from gradspike.methods.options import MethodConfig


class LsgConfig(MethodConfig):
    """LSG has no options of its own: its width follows the decay factor."""


class Lsg(Method):
    """theta[t] = V_th, kappa[t] = 2 V_th sqrt(1 + tau^2): the width follows the learned decay factor, detached."""

    Config: ClassVar[type[LsgConfig]] = LsgConfig
    config: LsgConfig

    @override
    def plan(self, facts: LayerFacts) -> Plan:
        width = 2 * facts.v_threshold * (1 + facts.decay.square()).sqrt()
        return Plan(thresholds=facts.full(facts.v_threshold), widths=width.expand(facts.time_steps))
