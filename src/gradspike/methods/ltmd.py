"""LTMD: a threshold learned in every layer (Wang, Cheng, Lim; NeurIPS 2022)."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from typing_extensions import override

from gradspike.methods.base import LayerFacts, Method, Plan
from gradspike.methods.options import MIN_WIDTH, MethodConfig


class LtmdConfig(MethodConfig):
    """`threshold_raw` is the initial w of theta = tanh(w). `v_threshold` only sets the norm's scale."""

    threshold_raw: float = Field(default=0.5, gt=0)
    width: float = Field(default=1.0, ge=MIN_WIDTH)


class Ltmd(Method):
    """theta[t] = tanh(w), w learned, one per layer; kappa[t] = `width`.

    dL/dw = -(1 - theta^2) sum over steps and elements of a[t] h(v[t]), as in the released code.
    """

    Config: ClassVar[type[LtmdConfig]] = LtmdConfig
    config: LtmdConfig
    sets_threshold = True
    sets_width = False

    def __init__(self, config: LtmdConfig, time_steps: int, channels: int) -> None:
        super().__init__(config, time_steps, channels)
        self.threshold_raw = nn.Parameter(torch.tensor(config.threshold_raw))

    @property
    def threshold(self) -> Tensor:
        """theta, a scalar."""
        return self.threshold_raw.tanh()

    @override
    def plan(self, facts: LayerFacts) -> Plan:
        thresholds = self.threshold.to(facts.dtype).expand(facts.time_steps)
        return Plan(thresholds, widths=facts.full(self.config.width))
