"""MPD-SGR: a loss on the share of potentials inside the surrogate's window (Jiang et al., AAAI 2026).

Only the paper's abstract was available; the rule below is our interpretation of it.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor
from typing_extensions import override

from gradspike.methods.base import LayerFacts, Method, Plan
from gradspike.methods.options import MIN_WIDTH, MethodConfig

VARIANCE_FLOOR = 1e-6


class MpdSgrConfig(MethodConfig):
    """`weight` is that of the loss. `width` is constant."""

    width: float = Field(default=1.0, ge=MIN_WIDTH)
    weight: float = Field(default=0.01, ge=0)
    sync_stats: Literal["auto"] | bool = "auto"


class MpdSgr(Method):
    """theta[t] = V_th, kappa[t] = `width`; the loss is weight * the mean over steps of P(|u[t] - theta| < kappa / 2),

    u[t] taken as normal with its mean and biased variance. It lowers the share of elements that pass a gradient, which
    the paper links to robustness against perturbed inputs.
    """

    Config: ClassVar[type[MpdSgrConfig]] = MpdSgrConfig
    config: MpdSgrConfig

    @override
    def plan(self, facts: LayerFacts) -> Plan:
        return Plan(thresholds=facts.full(facts.v_threshold), widths=facts.full(self.config.width))

    @property
    @override
    def has_membrane_loss(self) -> bool:
        return self.config.weight > 0

    @override
    def membrane_loss(self, facts: LayerFacts, mean: Tensor, variance: Tensor) -> Tensor:
        return self.config.weight * share_inside(mean, variance, facts.v_threshold, self.config.width).mean()


def share_inside(mean: Tensor, variance: Tensor, threshold: float, width: float) -> Tensor:
    """P(|u - threshold| < width / 2) of u = N(mean, variance), elementwise. A variance below 1e-6 is raised to that."""
    scale = (2 * variance.clamp_min(VARIANCE_FLOOR)).sqrt()
    upper, lower = (threshold + width / 2 - mean) / scale, (threshold - width / 2 - mean) / scale
    return (upper.erf() - lower.erf()) / 2
