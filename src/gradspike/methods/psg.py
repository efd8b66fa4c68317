"""PSG: a surrogate whose width is learned, with the loss PDA (Wang, Cheng, Lim; arXiv 2304.13289; Neurocomputing 2025).

Only the paper's abstract was available; the rules below are our interpretation of it.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from gradspike.methods.base import LayerFacts, Method, Plan
from gradspike.methods.options import MIN_WIDTH, MethodConfig

# The symmetric divergence grows without bound as the potential's spread vanishes, as it does when every input is equal.
VARIANCE_FLOOR = 1e-4


class PsgConfig(MethodConfig):
    """`width` is the initial width; `width_lr_multiplier` scales its learning rate.

    `pda_weight` (lambda) is the weight of the loss that pulls the potential to N(0, pda_target^2). A target of None is
    V_th.
    """

    width: float = Field(default=1.0, gt=MIN_WIDTH)
    width_per: Literal["layer", "channel"] = "layer"
    width_lr_multiplier: float = Field(default=1.0, ge=0)
    pda_weight: float = Field(default=0.0, ge=0)
    pda_target: float | None = Field(default=None, gt=0)
    sync_stats: Literal["auto"] | bool = "auto"


class PsgPdaConfig(PsgConfig):
    """PSG with its potential distribution loss switched on."""

    pda_weight: float = Field(default=0.01, ge=0)


class Psg(Method):
    """theta[t] = V_th, kappa learned: one per layer or per channel, the same for all steps.

    dL/dkappa = sum over t of (total adjoint of s[t]) * d phi_kappa(v[t]) / d kappa, with phi_kappa the primitive of the
    surrogate: the exact gradient of the network that emits phi instead of the step function. kappa = 1e-3 +
    softplus(width_raw) stays positive.

    PDA: pda_weight * (KL(P||Q) + KL(Q||P)) / 2 between the potential, moment-matched as P = N(mu, sigma^2), and the
    target Q = N(0, pda_target^2), averaged over steps.
    """

    Config: ClassVar[type[PsgConfig]] = PsgConfig
    config: PsgConfig

    def __init__(self, config: PsgConfig, time_steps: int, channels: int) -> None:
        super().__init__(config, time_steps, channels)
        raw = math.log(math.expm1(config.width - MIN_WIDTH))
        shape = (channels,) if config.width_per == "channel" else ()
        self.width_raw = nn.Parameter(torch.full(shape, raw))

    @property
    def width(self) -> Tensor:
        """kappa, [] or [C]."""
        return MIN_WIDTH + F.softplus(self.width_raw)

    @override
    def lr_multipliers(self) -> dict[str, float]:
        return {"width_raw": self.config.width_lr_multiplier}

    @override
    def plan(self, facts: LayerFacts) -> Plan:
        width = self.width.to(facts.dtype)
        return Plan(thresholds=facts.full(facts.v_threshold), widths=width.expand(facts.time_steps, *width.shape))

    @property
    @override
    def has_membrane_loss(self) -> bool:
        return self.config.pda_weight > 0

    @override
    def membrane_loss(self, facts: LayerFacts, mean: Tensor, variance: Tensor) -> Tensor:
        target = self.config.pda_target if self.config.pda_target is not None else facts.v_threshold
        return self.config.pda_weight * symmetric_divergence(mean, variance, target).mean()


class PsgPda(Psg):
    """PSG with its potential distribution loss switched on."""

    Config: ClassVar[type[PsgConfig]] = PsgPdaConfig


def symmetric_divergence(mean: Tensor, variance: Tensor, target_std: float) -> Tensor:
    """(KL(P||Q) + KL(Q||P)) / 2 of P = N(mean, variance) and Q = N(0, target_std^2), elementwise.

    The logarithms of the two terms cancel. A variance below 1e-4 target_std^2 is raised to that value.
    """
    target = target_std**2
    variance = variance.clamp_min(VARIANCE_FLOOR * target)
    return ((variance + mean.square()) / target + (target + mean.square()) / variance - 2) / 4
