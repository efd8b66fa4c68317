"""LIF: leaky integrate-and-fire with a constant decay factor."""

from __future__ import annotations

from typing import ClassVar

from gradspike.neurons.constant import ConstantDecay
from gradspike.neurons.leaky import Leaky
from gradspike.neurons.options import LeakyConfig


class LIF(ConstantDecay, Leaky):
    """Constant decay factor: no parameter, and nothing in a state dict."""

    Config: ClassVar[type[LeakyConfig]] = LeakyConfig
