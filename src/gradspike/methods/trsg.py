"""TrSG: a learned threshold that is also the surrogate's width and the spike's height (Kook et al., WACV 2026)."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from gradspike.methods.base import LayerFacts, Method, Plan
from gradspike.methods.options import MethodConfig


class TrsgConfig(MethodConfig):
    """`v_threshold` is the initial threshold."""

    v_threshold: float = Field(default=1.0, gt=0)


class Trsg(Method):
    """theta[t] = kappa[t] = softplus(threshold_raw), learned, one per layer; the layer emits theta * s.

    With the rectangle this is the released code: b = clip(u / theta - 1/2, 0, 1) rounded, with the gradient of the clip
    with respect to u and theta. The authors use it with `neuron=trsg`.
    """

    Config: ClassVar[type[TrsgConfig]] = TrsgConfig
    config: TrsgConfig
    sets_threshold = True
    scales_spikes = True

    def __init__(self, config: TrsgConfig, time_steps: int, channels: int) -> None:
        super().__init__(config, time_steps, channels)
        self.threshold_raw = nn.Parameter(torch.tensor(math.log(math.expm1(config.v_threshold))))

    @property
    def threshold(self) -> Tensor:
        """theta, a scalar."""
        return F.softplus(self.threshold_raw)

    @override
    def plan(self, facts: LayerFacts) -> Plan:
        threshold = self.threshold.to(facts.dtype).expand(facts.time_steps)
        return Plan(thresholds=threshold, widths=threshold)
