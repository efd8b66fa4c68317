"""MPD-AGL: gradient learning that follows the membrane potential's distribution (Jiang et al., IJCAI 2025)."""

from __future__ import annotations

from typing import ClassVar

import torch
from typing_extensions import override

from gradspike.methods.base import LayerFacts, Method, Plan
from gradspike.methods.options import MethodConfig


class MpdAglConfig(MethodConfig):
    """`gamma_mean`: the width follows the norm's gain. `time_aware`: the first step has its own width. Neither: LSG."""

    gamma_mean: bool = True
    time_aware: bool = True


class MpdAgl(Method):
    """theta[t] = V_th; kappa[0] = 2 gamma_mean V_th, kappa[t] = 2 sqrt(1 + tau^2) gamma_mean V_th for t >= 1.

    gamma_mean is the mean gain of the layer's norm, or 1 for a layer without one; it and tau are detached. Ablations:
    without `gamma_mean`, it is 1 everywhere; without `time_aware`, step 0 has the width of the others; without both,
    the method is LSG.
    """

    Config: ClassVar[type[MpdAglConfig]] = MpdAglConfig
    config: MpdAglConfig

    @override
    def plan(self, facts: LayerFacts) -> Plan:
        width = 2 * facts.v_threshold * torch.ones_like(facts.decay)
        if self.config.gamma_mean and facts.gamma_mean is not None:
            width = width * facts.gamma_mean
        growth = (1 + facts.decay.square()).sqrt().expand(facts.time_steps)
        if self.config.time_aware:
            # No earlier step has added its variance to u[0] = x[0].
            growth = torch.cat([torch.ones_like(growth[:1]), growth[1:]])
        return Plan(thresholds=facts.full(facts.v_threshold), widths=width * growth)
