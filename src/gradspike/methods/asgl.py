"""ASGL: spikes mixed with the surrogate's primitive in training, whose width is learned (Wang et al., ICML 2023)."""

from __future__ import annotations

import math
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from typing_extensions import override

from gradspike.methods.base import LayerFacts, Method, Plan
from gradspike.methods.options import MIN_WIDTH, MethodConfig

MAX_WIDTH = 1e4


class AsglConfig(MethodConfig):
    """`alpha` is the initial width of the paper: the sigmoid's inverse slope, and the rectangle's kappa.

    `p` is the share of elements that emit the primitive; it is multiplied by `gamma` after each of `milestones`,
    fractions of the training. `adam_lr` is the rate of an Adam for widths, threshold and the neuron's parameters; None
    leaves them to the network's optimiser.
    """

    v_threshold: float = Field(default=1.0, gt=0)
    surrogate: Literal["sigmoid", "rectangular"] = "sigmoid"
    alpha: float = Field(default=5.0, ge=MIN_WIDTH, le=MAX_WIDTH / 4)
    width_per: Literal["layer", "channel", "neuron"] = "layer"
    p: float = Field(default=0.2, ge=0, le=1)
    gamma: float = Field(default=1.0, ge=0, le=1)
    milestones: list[float] = Field(default=[0.0, 0.2, 0.4, 0.6, 0.8, 0.95])
    learn_threshold: bool = False
    adam_lr: float | None = Field(default=3e-4, gt=0)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if any(not 0 <= one <= 1 for one in self.milestones):
            raise ValueError(f"milestones={self.milestones}: each is a fraction of the training, from 0 to 1")
        return self


class Asgl(Method):
    """theta[t] = V_th, or learned and at least 0; the width is learned; the layer emits theta * s[t].

    In training each element of each step emits phi(v) in place of H(v) with probability p; the gradient is that of phi
    for all elements. Evaluation has no noise. The stored parameter is that of the released code:

        sigmoid       slope a, starts at 1 / alpha;      phi = sig(a v),                      kappa = 4 / a
        rectangular   a, starts at ln(1 / alpha);        phi = clip(exp(a) v + 1/2, 0, 1),    kappa = exp(-a)

    kappa above 1e4 (a slope near or below 0) is lowered to 1e4, and a threshold below 0 is raised to 0. The gradient
    passes unchanged, so that the parameter can return.

    With `width_per: neuron` every position of a channel has a width of its own.
    """

    Config: ClassVar[type[AsglConfig]] = AsglConfig
    config: AsglConfig
    uses_progress: ClassVar[bool] = True
    scales_spikes = True

    milestones: Tensor

    def __init__(self, config: AsglConfig, time_steps: int, channels: int) -> None:
        super().__init__(config, time_steps, channels)
        self.sets_threshold = config.learn_threshold
        self.per_neuron = config.width_per == "neuron"
        start = 1 / config.alpha if config.surrogate == "sigmoid" else -math.log(config.alpha)
        self.alpha_raw = nn.Parameter(torch.full(() if config.width_per == "layer" else (channels,), start))
        if config.learn_threshold:
            self.threshold_raw = nn.Parameter(torch.tensor(config.v_threshold))
        self.register_buffer("milestones", torch.tensor(config.milestones), persistent=False)

    @property
    @override
    def analog_share(self) -> Tensor | None:
        if not self.config.p:
            return None
        # The released code multiplies p after the epoch that begins at a milestone; with a margin for rounding.
        passed = (self.milestones < self.progress - 1e-6).sum()
        return self.config.p * torch.pow(self.config.gamma, passed.to(self.milestones.dtype))

    @override
    def quantities(self) -> dict[str, Tensor]:
        share = self.analog_share
        return {} if share is None else {"analog_share": share}

    @property
    @override
    def adam_lr(self) -> float | None:
        return self.config.adam_lr

    @override
    def set_space(self, space: tuple[int, ...]) -> None:
        super().set_space(space)
        start = self.alpha_raw.detach().view(-1, *[1] * len(space)).expand(-1, *space)
        self.alpha_raw = nn.Parameter(start.clone(memory_format=torch.contiguous_format))

    @property
    def width(self) -> Tensor:
        """kappa, [], [C] or [C, *space]."""
        if self.config.surrogate == "sigmoid":
            return 4 / at_least(self.alpha_raw, 4 / MAX_WIDTH)
        return (-at_least(self.alpha_raw, -math.log(MAX_WIDTH))).exp()

    @override
    def plan(self, facts: LayerFacts) -> Plan:
        width = self.width.to(facts.dtype)
        thresholds = facts.full(facts.v_threshold)
        if self.config.learn_threshold:
            thresholds = at_least(self.threshold_raw, 0.0).to(facts.dtype).expand(facts.time_steps)
        return Plan(thresholds, widths=width.expand(facts.time_steps, *width.shape))


def at_least(value: Tensor, bound: float) -> Tensor:
    """`value`, raised to the bound, with the gradient of `value` everywhere."""
    return value.detach().clamp_min(bound) + (value - value.detach())
