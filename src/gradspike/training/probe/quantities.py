"""The quantities of the probe. Pure functions whose results stay on the device."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from gradspike.engine.base import membrane_statistics, over_channels
from gradspike.errors import ConfigError
from gradspike.runs.probe_records import HISTOGRAM_RANGE
from gradspike.spiking_norm import LayerTrace

Quantities = Mapping[str, float | list[float]]
"""For each quantity, one number per time step or a single number for all steps."""


def layer_statistics(trace: LayerTrace) -> dict[str, Tensor]:
    """Statistics of u [T, B, C, *space], spikes, theta and kappa, with the names of `training.probe.probe`.

    [T] each, except for the scalars `silent`, `always_firing` and those that the method names. Potentials, thresholds
    and widths have the unit of the membrane potential. `u_std` is unbiased; the deviation over channels is not.
    Raises ConfigError if a name of the method is one of the probe's.
    """
    per_step = [_step(*step) for step in zip(trace.u, trace.spikes, trace.thresholds, trace.widths, strict=True)]
    statistics = {name: torch.stack([step[name] for step in per_step]) for name in per_step[0]}
    # Neurons that emit counts fire in a step whatever the count.
    counts = (trace.spikes != 0).sum((0, 1))
    chances = trace.spikes.shape[0] * trace.spikes.shape[1]
    statistics["silent"] = (counts == 0).float().mean()
    statistics["always_firing"] = (counts == chances).float().mean()
    if taken := statistics.keys() & trace.own.keys():
        raise ConfigError(f"the method's `quantities` have the name '{min(taken)}', which the probe uses itself.")
    return statistics | dict(trace.own)


def _step(u: Tensor, spikes: Tensor, theta: Tensor, kappa: Tensor) -> dict[str, Tensor]:
    mean, std = membrane_statistics(u)
    inside = (u - over_channels(theta, u)).abs() < over_channels(kappa, u) / 2
    statistics = {
        "firing_rate": spikes.mean(dtype=torch.float32),
        "gradient_available": inside.float().mean(),
        "u_mean": mean,
        "u_std": std,
        "theta": theta.mean(),
        "kappa": kappa.mean(),
    }
    for name, value in (("theta_std", theta), ("kappa_std", kappa)):
        if value.ndim:
            statistics[name] = value.std(correction=0)
    return statistics


def distance_histogram(trace: LayerTrace, bins: int) -> Tensor:
    """The histogram [bins] of (u - theta) / kappa over all elements and steps, as fractions; `bins` <= 256.

    The bins are equal, from -2 to 2. The first and the last one include everything beyond, and the first one
    NaN, of which the probe warns. The surrogate's window is
    |distance| < 1/2.
    """
    placed = torch.stack(
        [
            _bin((u - over_channels(theta, u)) / over_channels(kappa, u), bins)
            for u, theta, kappa in zip(trace.u, trace.thresholds, trace.widths, strict=True)
        ]
    )
    # torch.histc is not deterministic on a GPU. bincount makes a GPU wait for the size of its result.
    return placed.flatten().bincount(minlength=bins) / placed.numel()


def _bin(distance: Tensor, bins: int) -> Tensor:
    # One byte per element: counting is several times as fast as with torch.bucketize.
    scaled = (distance + HISTOGRAM_RANGE) * (bins / (2 * HISTOGRAM_RANGE))
    return scaled.nan_to_num_(0.0).clamp_(0, bins - 1).to(torch.uint8)


def gradient_norms(gradient: Tensor, time_steps: int) -> Tensor:
    """The Euclidean norm of each time step of a gradient [T*B, ...], [T]; with `time_steps` = 1 of the whole, [1]."""
    steps = torch.unflatten(gradient, 0, (time_steps, -1))
    return torch.stack([step.float().square().sum() for step in steps]).sqrt()


def over_steps(quantity: str, value: float | list[float]) -> float:
    """One number for all steps: the norm of a whole gradient, the mean of any other quantity."""
    if not isinstance(value, list):
        return value
    return math.hypot(*value) if quantity.startswith("grad_") else sum(value) / len(value)


def flat(layers: Mapping[str, Quantities], prefix: str) -> dict[str, float]:
    """The scalars of a record by their keys, as `training.probe.probe` describes them."""
    scalars: dict[str, float] = {}
    names = dict.fromkeys(quantity for values in layers.values() for quantity in values)
    for quantity in names:
        found = [values[quantity] for values in layers.values() if quantity in values]
        means = [over_steps(quantity, value) for value in found]
        scalars[f"{prefix}/mean/{quantity}"] = sum(means) / len(means)
        scalars[f"{prefix}/spread_layers/{quantity}"] = _spread(means)
        spreads = [_spread(value) for value in found if isinstance(value, list)]
        if spreads:
            scalars[f"{prefix}/spread_steps/{quantity}"] = sum(spreads) / len(spreads)
    for layer, values in layers.items():
        for quantity, value in values.items():
            scalars[f"{prefix}/{layer}/{quantity}"] = over_steps(quantity, value)
            for t, step in enumerate(value if isinstance(value, list) else ()):
                scalars[f"{prefix}/{layer}/{quantity}/t{t}"] = step
    return {name: rounded(value) for name, value in scalars.items()}


def rounded(value: float) -> float:
    """`value` rounded to six digits, the precision of a float32 mean, which halves the record."""
    return float(f"{value:.6g}")


def _spread(values: Sequence[float]) -> float:
    """The population standard deviation."""
    mean = sum(values) / len(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))
