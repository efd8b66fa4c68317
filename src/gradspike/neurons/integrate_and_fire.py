"""IF: integrate-and-fire, without a leak."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from gradspike.neurons.constant import ConstantDecay
from gradspike.neurons.leaky import Leaky
from gradspike.neurons.options import LeakyConfig


class IntegrateConfig(LeakyConfig):
    """No leak: tau is 1, and there is no input decay."""

    decay: float = Field(default=1.0, ge=1, le=1)
    decay_input: Literal[False] = False


class IntegrateAndFire(ConstantDecay, Leaky):
    """u[t] = w[t-1] + x[t]: the leaky integrator with tau = 1."""

    Config: ClassVar[type[IntegrateConfig]] = IntegrateConfig
