"""Numbers that describe what one spiking layer does. Pure functions, whose results stay on the device."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from gradspike.engine.base import membrane_statistics, over_channels
from gradspike.runs.probe_records import HISTOGRAM_RANGE
from gradspike.spiking_norm import LayerTrace

Quantities = Mapping[str, float | list[float]]
"""Per quantity one number for each time step, or a single one for all steps together."""


def layer_statistics(trace: LayerTrace) -> dict[str, Tensor]:
    """Statistics of u [T, B, C, *space], spikes, theta and kappa, in the words of `callbacks.probe`.

    [T] each, but `silent` and `always_firing`, which are scalars. Potentials, thresholds and widths are in units of the
    membrane potential; `u_std` is unbiased, the std over channels is not.
    """
    per_step = [_step(*step) for step in zip(trace.u, trace.spikes, trace.thresholds, trace.widths, strict=True)]
    statistics = {name: torch.stack([step[name] for step in per_step]) for name in per_step[0]}
    counts = trace.spikes.sum((0, 1), dtype=torch.float32)
    chances = trace.spikes.shape[0] * trace.spikes.shape[1]
    statistics["silent"] = (counts == 0).float().mean()
    statistics["always_firing"] = (counts == chances).float().mean()
    return statistics


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
    """Shares [bins] of (u - theta) / kappa over all elements and steps, in equal bins from -2 to 2; `bins` <= 256.

    The first and the last bin are open: they hold what lies beyond. The surrogate's window is |distance| < 1/2.
    """
    placed = torch.stack(
        [
            _bin((u - over_channels(theta, u)) / over_channels(kappa, u), bins)
            for u, theta, kappa in zip(trace.u, trace.thresholds, trace.widths, strict=True)
        ]
    )
    # Not torch.histc, which is not deterministic on a GPU; a GPU waits here for the size of the result.
    return placed.flatten().bincount(minlength=bins) / placed.numel()


def _bin(distance: Tensor, bins: int) -> Tensor:
    # One byte an element makes the count several times as fast as torch.bucketize would.
    scaled = (distance + HISTOGRAM_RANGE) * (bins / (2 * HISTOGRAM_RANGE))
    return scaled.nan_to_num_(0.0).clamp_(0, bins - 1).to(torch.uint8)


def gradient_norms(gradient: Tensor, time_steps: int) -> Tensor:
    """Euclidean norm of each step's part [T] of a gradient [T*B, ...]; with `time_steps` = 1 that of the whole, [1]."""
    steps = torch.unflatten(gradient, 0, (time_steps, -1))
    return torch.stack([step.float().square().sum() for step in steps]).sqrt()


def over_steps(quantity: str, value: float | list[float]) -> float:
    """One number for all steps: the norm of the whole gradient, and the mean of anything else."""
    if not isinstance(value, list):
        return value
    return math.hypot(*value) if quantity.startswith("grad_") else sum(value) / len(value)


def flat(layers: Mapping[str, Quantities], prefix: str) -> dict[str, float]:
    """`<prefix>/<layer>/<quantity>[/t<k>]` and the network's numbers, in the words of `callbacks.probe`"""
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
    """`value` to the six digits that a float32 mean is good for, which halves the record."""
    return float(f"{value:.6g}")


def _spread(values: Sequence[float]) -> float:
    """Standard deviation of exactly these values (no sample of more)."""
    mean = sum(values) / len(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))
