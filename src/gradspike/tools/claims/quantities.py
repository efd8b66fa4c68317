"""What is computed from one stored run: a number in percent, points, or the quantity's own unit. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import fmean, pstdev

from gradspike.errors import ConfigError
from gradspike.tools.claims.summary import Record, Steps

LAST_LAYERS = 3


@dataclass(frozen=True)
class Quantity:
    """A function of a run, with the unit of a value and of a difference of two, and its title in figures."""

    of: Callable[[Record], float]
    unit: str
    title: str
    difference: str | None = None

    def unit_of(self, is_difference: bool) -> str:
        """The unit of a value, or of a difference."""
        return self.difference or self.unit if is_difference else self.unit


def by_layer(steps: Steps) -> list[float]:
    """The mean over time steps of each layer. Raises ConfigError for a missing number."""
    return [fmean(row) for row in numbers(steps)]


def numbers(steps: Steps) -> list[list[float]]:
    """All numbers, [layers, T]. Raises ConfigError for a missing one: the network had NaN or infinity there."""
    rows = [[value for value in row if value is not None] for row in steps]
    if not rows or [len(row) for row in rows] != [len(row) for row in steps]:
        raise ConfigError("a layer has no number at some step: its potentials were not finite. Leave the run out.")
    return rows


def by_step(steps: Steps) -> list[float]:
    """The mean over layers at each time step."""
    return by_layer(tuple(zip(*steps, strict=True)))


def _layers(quantity: str, take: Callable[[list[float]], float], start: bool = False) -> Callable[[Record], float]:
    def of(run: Record) -> float:
        return take(by_layer(_probed(run, quantity, start)))

    return of


def _probed(run: Record, quantity: str, start: bool = False) -> Steps:
    values = (run.start if start else run.last).get(quantity)
    if values is None:
        raise ConfigError(f"a run has no {quantity} per layer: the probe was off, or it is the ReLU twin.")
    return values


def _value(name: str, factor: float = 1.0) -> Callable[[Record], float]:
    def of(run: Record) -> float:
        if name not in run.values:
            raise ConfigError(f"a run has no {name}.")
        return factor * run.values[name]

    return of


def _percent(take: Callable[[list[float]], float]) -> Callable[[list[float]], float]:
    return lambda values: 100 * take(values)


def _last_of(values: list[float]) -> float:
    return fmean(values[-LAST_LAYERS:])


def _rise(values: list[float]) -> float:
    """The last layer's value minus the mean of the others."""
    return values[-1] - fmean(values[:-1])


def _fall(values: list[float]) -> float:
    """The mean of the first layers minus that of the last ones."""
    return fmean(values[:LAST_LAYERS]) - _last_of(values)


def _range_over_steps(run: Record) -> float:
    steps = by_step(_probed(run, "firing_rate"))
    return 100 * (max(steps) - min(steps))


def divergence(mean: float, std: float, target: float) -> float:
    """(KL(P||Q) + KL(Q||P)) / 2 of P = N(mean, std^2) and Q = N(0, target^2), PSG's loss PDA, in nats."""
    ratio = (std / target) ** 2
    return (ratio + 1 / ratio - 2 + mean**2 * (1 / target**2 + 1 / std**2)) / 4


def _divergence(run: Record) -> float:
    means, stds = numbers(_probed(run, "u_mean")), numbers(_probed(run, "u_std"))
    if not all(std for row in stds for std in row):
        raise ConfigError("a layer's potential has no spread, so its divergence is infinite. Leave the run out.")
    target = run.values["v_threshold"]
    pairs = (zip(*layer, strict=True) for layer in zip(means, stds, strict=True))
    return fmean(fmean(divergence(mean, std, target) for mean, std in layer) for layer in pairs)


def _first_spread(run: Record) -> float:
    """Measured standard deviation of u[0] over V_th, before training: mean over layers."""
    return fmean(row[0] for row in numbers(_probed(run, "u_std", start=True))) / run.values["v_threshold"]


def _later_spread(run: Record) -> float:
    """Measured standard deviation of u[t >= 1] over sqrt(1 + tau^2) V_th, before training, where tau = 0.2."""
    rows = numbers(_probed(run, "u_std", start=True))
    return fmean(fmean(row[1:]) for row in rows) / (math.sqrt(1 + 0.2**2) * run.values["v_threshold"])


QUANTITIES: Mapping[str, Quantity] = {
    "accuracy": Quantity(_value("accuracy", 100), "%", "test accuracy", "points"),
    "seconds": Quantity(_value("seconds"), "s", "training time"),
    "seconds_per_epoch": Quantity(_value("seconds_per_epoch"), "s", "training time of an epoch"),
    "parameters": Quantity(_value("parameters"), "", "parameters"),
    "inference_ratio": Quantity(_value("inference_ratio"), "ratio", "time of an inference over the baseline's"),
    "ssim": Quantity(_value("ssim"), "", "SSIM to the grey image"),
    "loss": Quantity(_value("loss"), "", "loss at the trained weights"),
    "loss_rise": Quantity(_value("loss_rise"), "", "median rise of the loss at half the extent of the plane"),
    "flat_share": Quantity(
        _value("flat_share", 100), "%", "share of the plane below twice the centre's loss", "points"
    ),
    "firing_rate": Quantity(_layers("firing_rate", _percent(fmean)), "%", "firing rate, mean over layers", "points"),
    "firing_rate_over_layers": Quantity(
        _layers("firing_rate", _percent(pstdev)), "points", "firing rate, standard deviation over layers"
    ),
    "firing_rate_rise": Quantity(
        _layers("firing_rate", _percent(_rise)), "points", "firing rate of the last layer minus mean of the others"
    ),
    "firing_rate_over_steps": Quantity(_range_over_steps, "points", "firing rate, largest minus smallest over steps"),
    "available": Quantity(
        _layers("gradient_available", _percent(fmean)), "%", "gradient-available share, mean over layers", "points"
    ),
    "available_last": Quantity(
        _layers("gradient_available", _percent(_last_of)),
        "%",
        f"gradient-available share, mean of the last {LAST_LAYERS} layers",
        "points",
    ),
    "available_fall": Quantity(
        _layers("gradient_available", _percent(_fall)),
        "points",
        f"gradient-available share, first {LAST_LAYERS} layers minus last {LAST_LAYERS}",
    ),
    "kappa": Quantity(_layers("kappa", fmean), "", "surrogate width, mean over layers"),
    "theta": Quantity(_layers("theta", fmean), "", "threshold, mean over layers"),
    "divergence": Quantity(_divergence, "nats", "divergence of the potential from N(0, V_th^2), mean over layers"),
    "first_spread": Quantity(_first_spread, "ratio", "standard deviation of u[0] over the predicted one"),
    "later_spread": Quantity(_later_spread, "ratio", "standard deviation of u[t >= 1] over the predicted one"),
}
"""Quantities that a claim may name."""
