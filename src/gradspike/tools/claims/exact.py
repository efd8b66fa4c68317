"""Statements that follow from a normal distribution alone, computed instead of measured. In percent unless noted."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial


def below(x: float) -> float:
    """Phi(x), the share of a standard normal distribution below x."""
    return math.erfc(-x / math.sqrt(2)) / 2


def firing_rate(mean: float, std: float) -> float:
    """Share of u ~ N(mean, std^2) above theta = mean + std, DS-ATGO's Theorem 1."""
    theta = mean + std
    return 100 * (1 - below((theta - mean) / std))


def available(std: float, kappa: float) -> float:
    """Share of u ~ N(0, std^2) with |u - theta| < kappa / 2, at theta = std."""
    return 100 * (below((std + kappa / 2) / std) - below((std - kappa / 2) / std))


def driven_width(threshold: float, v_threshold: float = 1.0) -> float:
    """kappa = 1 + tanh(theta - V_th), DS-ATGO's Eq. 7 with k = 1."""
    return 1 + math.tanh(threshold - v_threshold)


def spread_of_shares(adaptive: bool) -> float:
    """Largest minus smallest gradient-available share over spreads 1/2, 1 and 2 (DS-ATGO, Figure 5), in points."""
    shares = [available(std, driven_width(std) if adaptive else 1.0) for std in (0.5, 1.0, 2.0)]
    return max(shares) - min(shares)


def second_potential(tau: float, resets: bool) -> float:
    """Standard deviation of u[1] = tau u[0] (1 - s[0]) + x[1] over sqrt(1 + tau^2) V_th, MPD-AGL's prediction.

    u[0] and x[1] ~ N(0, V_th^2), independent; s[0] = 1 where u[0] >= V_th, if the neuron `resets`. A ratio.
    """
    phi = math.exp(-0.5) / math.sqrt(2 * math.pi)
    square, mean = (below(1.0) - phi, -phi) if resets else (1.0, 0.0)
    return math.sqrt((1 + tau**2 * (square - mean**2)) / (1 + tau**2))


EXACT: Mapping[str, tuple[Callable[[], float], str]] = {
    "firing_rate": (partial(firing_rate, 0.3, 1.7), "%"),
    "available_fixed_half": (partial(available, 0.5, 1.0), "%"),
    "available_fixed_one": (partial(available, 1.0, 1.0), "%"),
    "available_fixed_two": (partial(available, 2.0, 1.0), "%"),
    "available_driven_half": (lambda: available(0.5, driven_width(0.5)), "%"),
    "available_driven_one": (lambda: available(1.0, driven_width(1.0)), "%"),
    "available_driven_two": (lambda: available(2.0, driven_width(2.0)), "%"),
    "available_evened": (lambda: spread_of_shares(True) - spread_of_shares(False), "points"),
    "second_potential": (partial(second_potential, 0.2, False), "ratio"),
    "second_potential_reset": (partial(second_potential, 0.2, True), "ratio"),
}
"""Functions of claims by name, with their unit."""
