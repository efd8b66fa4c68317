"""The formulas for any neuron, with a backward pass that torch derives from the forward one.

Only the recursion is derived: `torch.func.vjp` of `steps.walk`, traced by torch.compile into one kernel that computes
the potential again. The norm before it keeps the backward pass of `norm_formulas`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gradspike.engine import steps
from gradspike.engine.base import recursion_dtype
from gradspike.engine.norm_formulas import (
    batch_statistics,
    current_at,
    first_current_at,
    inverse_std,
    moments_of,
    norm_backward,
    step_count,
    sum_of,
)
from gradspike.engine.records import Affine, Arriving, Fired, Gradients, Inputs, Spec, Step, Wanted
from gradspike.engine.steps import Driven, Rules
from gradspike.neurons.base import State

Parts = tuple[Tensor, ...]


def first_potentials(inputs: Inputs, spec: Spec, rules: Rules) -> Tensor:
    """See `formulas.first_potentials`. Without noise, because any nearby value shifts a sum well."""
    y, affine, thresholds, widths, values, _ = inputs
    currents = [first_current_at(y, t, affine, thresholds.dtype, spec) for t in range(spec.time_steps)]
    driven = Driven(values, thresholds.unbind(0), widths.unbind(0))
    return torch.stack(steps.walk(currents, driven, rules, _as_it_is, gradient=False).potentials)


def forward(inputs: Inputs, shifts: Tensor | None, spec: Spec, rules: Rules) -> Fired:
    """See `formulas.forward`."""
    y, affine, thresholds, _, _, _ = inputs
    mean = variance = None
    if spec.norm == "batch" and affine.mean is None:
        mean, variance = batch_statistics(y, thresholds.dtype, spec)
        affine = affine._replace(mean=mean, inverse=inverse_std(variance, spec))
    walked = steps.walk(
        _currents(y, affine, spec, thresholds), _driven(inputs, spec), rules, spec.spread, gradient=False
    )
    u_mean = u_variance = None
    if shifts is not None:
        moments = [moments_of(u, shifts[t], spec) for t, u in enumerate(walked.potentials)]
        u_mean = torch.stack([mean for mean, _ in moments])
        u_variance = torch.stack([squares for _, squares in moments]) / step_count(y, spec)
    end = steps.end_of_fired(walked.emitted, walked.state) if spec.follows_end else None
    return Fired(torch.stack([s.to(y.dtype) for s in walked.emitted]), mean, variance, u_mean, u_variance, end)


def advance(
    y: Tensor, previous: Step | None, affine: Affine, values: Parts, spec: Spec, rules: Rules
) -> tuple[Tensor, Tensor, Tensor, State]:
    """See `formulas.advance`. Neurons that charge all steps at once have no use for it."""
    dtype = recursion_dtype(y.dtype)
    x = current_at(y, 0, affine, dtype, spec)
    # u of one value per channel is computed separately; read from u, it would wait for all of u.
    first_x = first_current_at(y, 0, affine, dtype, spec)
    if previous is None:
        state = steps.start(x, values, rules, spec.spread)
        first_state = steps.start(first_x, values, rules, _as_it_is)
    else:
        u, threshold, width, spikes, before, then = previous
        s, state = steps.fire(u, before, then, threshold, width, rules, spec.spread, gradient=False)
        spikes.copy_(s)
        first_before = tuple(spec.first(part) for part in before)
        given = (spec.first(u), first_before, then, threshold, width, rules, _as_it_is)
        _, first_state = steps.fire(*given, gradient=False)
    charged = steps.charge(x, state, values, rules, spec.spread)
    first_u = steps.charge(first_x, first_state, values, rules, _as_it_is)
    return charged, *moments_of(charged, first_u, spec), state


def finish(last: Step, spec: Spec, rules: Rules) -> None:
    """See `formulas.finish`."""
    u, threshold, width, spikes, state, values = last
    s, _ = steps.fire(u, state, values, threshold, width, rules, spec.spread, gradient=False)
    spikes.copy_(s)


def backward(inputs: Inputs, arriving: Arriving, spec: Spec, rules: Rules, wanted: Wanted) -> Gradients:
    """See `formulas.backward`."""
    y, affine, thresholds, widths, values, _ = inputs
    dtype = thresholds.dtype
    driven = _driven(inputs, spec)
    moments = arriving.u_mean is not None or arriving.u_variance is not None

    # Steps are separate tensors: the gradient of an index into one tensor is a tensor of zeros for each step.
    def run(currents: Parts, thresholds: Parts, widths: Parts, learned: Parts) -> tuple[Parts, Parts]:
        remaining = iter(learned)
        used = [next(remaining) if wants else value for value, wants in zip(values, wanted.values, strict=True)]
        moving = driven._replace(values=used, thresholds=thresholds, widths=widths)
        walked = steps.walk(currents, moving, rules, spec.spread, gradient=True)
        return tuple(walked.emitted), tuple(walked.potentials) if moments else ()

    learned = tuple(value for value, wants in zip(values, wanted.values, strict=True) if wants)
    currents = tuple(_currents(y, affine, spec, thresholds))
    vjp: Any = torch.func.vjp
    (_, potentials), pull = vjp(run, currents, thresholds.unbind(0), widths.unbind(0), learned)
    of_spikes = tuple(arriving.spikes[t].to(dtype) for t in range(spec.time_steps))
    of_potentials = tuple(_of_moments(u, t, arriving, step_count(y, spec)) for t, u in enumerate(potentials))
    grad_current, grad_thresholds, grad_widths, grad_learned = pull((of_spikes, of_potentials))

    grad_steps = list(grad_current)
    if y.shape[0] == 1:
        grad_steps = [sum_of(grad_steps)]
    grad_y, grad_gain, grad_bias = norm_backward(grad_steps, y, affine, spec, wanted.affine)
    left = iter(grad_learned)
    return Gradients(
        grad_y,
        grad_gain,
        grad_bias,
        torch.stack(grad_thresholds) if wanted.thresholds else None,
        torch.stack(grad_widths) if wanted.widths else None,
        tuple(next(left) if wants else None for wants in wanted.values),
    )


def _of_moments(u: Tensor, t: int, arriving: Arriving, count: int) -> Tensor:
    """Gradient of u[t] through its mean and variance."""
    gradient = torch.zeros_like(u)
    if arriving.u_mean is not None:
        gradient = gradient + arriving.u_mean[t] / count
    if arriving.u_variance is not None and arriving.mean is not None:
        gradient = gradient + arriving.u_variance[t] * (2 / count) * (u - arriving.mean[t])
    return gradient


def _currents(y: Tensor, affine: Affine, spec: Spec, thresholds: Tensor) -> list[Tensor]:
    return [current_at(y, t, affine, thresholds.dtype, spec) for t in range(spec.time_steps)]


def _driven(inputs: Inputs, spec: Spec) -> Driven:
    places = None if inputs.noise is None else _places(inputs.y, spec)
    return Driven(inputs.values, inputs.thresholds.unbind(0), inputs.widths.unbind(0), inputs.noise, places)


def _places(y: Tensor, spec: Spec) -> Tensor:
    """Numbers of a step's elements, in the order [B, *space, C] in either arrangement."""
    outer, second, third = y.shape[1:]
    sites, channels = (second, third) if spec.arrangement == "rows" else (third, second)
    site = torch.arange(outer * sites, device=y.device).view(outer, sites)
    channel = torch.arange(channels, device=y.device)
    if spec.arrangement == "rows":
        return site.unsqueeze(2) * channels + channel
    return site.unsqueeze(1) * channels + channel.unsqueeze(1)


def _as_it_is(value: Tensor) -> Tensor:
    return value
