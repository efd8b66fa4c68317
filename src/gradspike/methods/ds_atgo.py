"""DS-ATGO: adaptive threshold (AT) and threshold-driven gradient optimisation (TGO) (Jiang et al., AAAI 2026)."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from gradspike.methods.base import LayerFacts, Method, Plan
from gradspike.methods.options import MethodConfig


class DsAtgoConfig(MethodConfig):
    """DS-ATGO and its ablations; see `ds_atgo.DsAtgo`."""

    v_threshold: float = Field(default=1.0, gt=0)
    at: bool = True
    tgo: bool = True
    driver: Literal["std", "threshold"] = "std"
    threshold_source: Literal["measured", "estimated"] = "measured"
    firing_factor: float = Field(default=1.0, gt=0)
    moving_average: bool = True
    momentum: float = Field(default=0.1, gt=0, le=1)
    k: float = Field(default=1.0, gt=0)
    sync_stats: Literal["auto"] | bool = "auto"


class DsAtgo(Method):
    """In training, from mean and unbiased std of the layer's u[t] over the mini-batch, both detached:

        AT:   theta[t] = f_c (mean(u[t]) + std(u[t]))     f_c = `firing_factor`
        TGO:  kappa[t] = k (1 + tanh(d[t] - V_th))        d[t] = std(u[t]); theta[t] with `driver: threshold` (Eq. 7)

    A running threshold per step, the persistent buffer `running_threshold` [T], starts at V_th and follows theta[t]
    with `momentum`. Evaluation fires at it.

    Ablations. Without `at`, theta[t] = V_th. Without `tgo`, kappa[t] = k, the formula's value at d = V_th.
    `threshold_source: estimated` replaces the measured threshold by f_c sqrt(1 + tau^2) V_th. Without
    `moving_average`, evaluation fires at the thresholds of the last training batch, so a prediction does not depend on
    the rest of its batch. With `sync_stats: false`, each rank measures its own share of the batch.
    """

    Config: ClassVar[type[DsAtgoConfig]] = DsAtgoConfig
    config: DsAtgoConfig
    measures_membrane: ClassVar[bool] = True

    running_threshold: Tensor

    def __init__(self, config: DsAtgoConfig, time_steps: int, channels: int) -> None:
        super().__init__(config, time_steps, channels)
        self.sets_threshold = config.at
        self.register_buffer("running_threshold", torch.full((time_steps,), config.v_threshold))

    @override
    def measures(self, facts: LayerFacts) -> bool:
        config = self.config
        measures_threshold = config.at and facts.training and config.threshold_source == "measured"
        measures_driver = config.tgo and facts.gradients and config.driver == "std"
        return measures_threshold or measures_driver

    @override
    def plan(self, facts: LayerFacts) -> Plan:
        thresholds = torch.stack([self._unmeasured_threshold(t, facts) for t in range(facts.time_steps)])
        drivers = thresholds if self.config.driver == "threshold" else None
        return Plan(thresholds, self._width(facts, drivers, like=thresholds))

    @override
    def adapt(self, t: int, facts: LayerFacts, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
        if self.config.at and facts.training and self.config.threshold_source == "measured":
            threshold = self.config.firing_factor * (mean + std)
            self._follow(t, threshold, facts)
        else:
            threshold = self._unmeasured_threshold(t, facts)
        driver = std if self.config.driver == "std" else threshold
        return threshold, self._width(facts, driver, like=threshold)

    def _unmeasured_threshold(self, t: int, facts: LayerFacts) -> Tensor:
        if not self.config.at:
            return facts.scalar.new_full((), facts.v_threshold)
        if facts.training:
            threshold = self.config.firing_factor * facts.v_threshold * (1 + facts.decay.square()).sqrt()
            self._follow(t, threshold, facts)
            return threshold
        return self.running_threshold[t].to(facts.dtype)

    def _width(self, facts: LayerFacts, driver: Tensor | None, like: Tensor) -> Tensor:
        # Without a driver no backward pass follows (see `measures`), and nothing reads the width.
        if driver is None or not self.config.tgo:
            return torch.full_like(like, self.config.k)
        return self.config.k * (1 + torch.tanh(driver - facts.v_threshold))

    def _follow(self, t: int, threshold: Tensor, facts: LayerFacts) -> None:
        if facts.updates:
            momentum = self.config.momentum if self.config.moving_average else 1.0
            with torch.no_grad():
                self.running_threshold[t].lerp_(threshold.to(self.running_threshold.dtype), momentum)
