"""The formulas for any neuron, with a backward pass that torch derives from the forward one.

Only the recursion is derived: `torch.func.vjp` of `steps.walk`, traced by torch.compile into one kernel that computes
the potential again. The norm before it keeps the backward pass of `norm_formulas`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gradspike.engine import mixed, steps
from gradspike.engine.base import recursion_dtype
from gradspike.engine.norm_formulas import (
    batch_statistics,
    current_at,
    first_current_at,
    inverse_std,
    joined,
    moments_of,
    norm_backward,
    step_count,
    stored,
    sum_of,
)
from gradspike.engine.records import Affine, Arriving, Fired, Gradients, Inputs, Part, Spec, Step, Wanted
from gradspike.engine.steps import Driven, Rules
from gradspike.neurons.base import State

Parts = tuple[Tensor, ...]
Learned = Tensor | Parts


def first_potentials(inputs: Inputs, spec: Spec, rules: Rules) -> Tensor:
    """See `formulas.first_potentials`. Without noise, because any nearby value shifts a sum well."""
    y, affine, thresholds, widths, values, *_ = inputs
    currents = [first_current_at(y, t, affine, thresholds.dtype, spec) for t in range(spec.time_steps)]
    driven = Driven(values, thresholds.unbind(0), widths.unbind(0))
    return torch.stack(steps.walk(currents, driven, rules, _as_it_is, gradient=False).potentials)


def forward(inputs: Inputs, shifts: Tensor | None, spec: Spec, rules: Rules) -> Fired:
    """See `formulas.forward`."""
    if mixed.describes(inputs, spec, rules):
        return mixed.forward(inputs, shifts, spec, rules)
    y, affine, thresholds, *_ = inputs
    mean = variance = None
    if spec.norm == "batch" and affine.mean is None:
        mean, variance = batch_statistics(y, thresholds.dtype, spec)
        affine = affine._replace(mean=mean, inverse=stored(inverse_std(variance, spec)))
    walked = steps.walk(
        _currents(y, affine, spec, thresholds), _driven(inputs, spec), rules, spec.spread, gradient=False
    )
    end = steps.end_of_fired(walked.emitted, walked.state) if spec.follows_end else None
    spikes = torch.stack([s.to(y.dtype) for s in walked.emitted])
    return Fired(spikes, mean, variance, *_moments(walked.potentials, shifts, y, spec), end)


def forward_part(
    inputs: Inputs, shifts: Tensor | None, part: Part, spec: Spec, rules: Rules
) -> tuple[State, Tensor | None, Tensor | None]:
    """See `formulas.forward_part`."""
    y, affine, thresholds, *_ = inputs
    currents = _currents(y, affine, spec, thresholds)
    walked = steps.walk(currents, _driven(inputs, spec), rules, spec.spread, gradient=False, state=part.state)
    for target, s in zip(part.into, walked.emitted, strict=True):
        target.copy_(s)
    return walked.state, *_moments(walked.potentials, shifts, y, spec)


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
    if mixed.describes(inputs, spec, rules):
        return mixed.backward(inputs, arriving, spec, rules, wanted)
    found, steps_of_y, _ = _backward(inputs, arriving, spec, rules, wanted)
    return found._replace(y=joined(steps_of_y, inputs.y.dtype))


def backward_part(
    inputs: Inputs, arriving: Arriving, part: Part, spec: Spec, rules: Rules, wanted: Wanted
) -> tuple[Gradients, State]:
    """See `formulas.backward_part`."""
    found, steps_of_y, of_state = _backward(inputs, arriving, spec, rules, wanted, part)
    for target, step in zip(part.into, steps_of_y, strict=True):
        target.copy_(step)
    return found, of_state


def _backward(
    inputs: Inputs, arriving: Arriving, spec: Spec, rules: Rules, wanted: Wanted, part: Part | None = None
) -> tuple[Gradients, Tensor | list[Tensor], State]:
    """All gradients but that of y, the gradients of its steps, and that of the state before them."""
    y, affine, thresholds, widths, values, *_ = inputs
    dtype = thresholds.dtype
    driven = _driven(inputs, spec)
    moments = arriving.u_mean is not None or arriving.u_variance is not None
    if not wanted.widths and inputs.noise is None:
        rules = steps.tangent(rules)

    # Steps are separate tensors: the gradient of an index into one tensor is a tensor of zeros for each step.
    def run(
        currents: Parts, thresholds: Parts, widths: Parts, learned: tuple[Learned, ...], state: State
    ) -> tuple[Parts, Parts, State]:
        remaining = iter(learned)
        used: Any = [next(remaining) if wants else value for value, wants in zip(values, wanted.values, strict=True)]
        moving = driven._replace(values=used, thresholds=thresholds, widths=widths)
        before = None if part is None else state
        walked = steps.walk(currents, moving, rules, spec.spread, gradient=True, state=before)
        potentials = tuple(walked.potentials) if moments else ()
        return tuple(walked.emitted), potentials, () if part is None else walked.state

    currents = tuple(_currents(y, affine, spec, thresholds))
    one_step = currents[0]
    axes = [of for of, wants in zip(rules.neuron.axes.values(), wanted.values, strict=True) if wants]
    given = [value for value, wants in zip(values, wanted.values, strict=True) if wants]
    learned = tuple(_laid_out(value, of, one_step, spec) for value, of in zip(given, axes, strict=True))
    primals: list[Parts] = []
    for each, wants in ((thresholds, wanted.thresholds), (widths, wanted.widths)):
        primals.append(tuple(spec.laid_out(value, one_step) if wants else value for value in each.unbind(0)))
    before, after = ((), ()) if part is None else (part.state, part.after)
    vjp: Any = torch.func.vjp
    (_, potentials, _), pull = vjp(run, currents, *primals, learned, before)
    of_spikes = tuple(arriving.spikes[t].to(dtype) for t in range(spec.time_steps))
    of_potentials = tuple(_of_moments(u, t, arriving, step_count(y, spec)) for t, u in enumerate(potentials))
    pulled = pull((of_spikes, of_potentials, after))
    grad_current, grad_thresholds, grad_widths, grad_learned, of_state = pulled

    grad_steps = list(grad_current)
    if y.shape[0] == 1:
        grad_steps = [sum_of(grad_steps)]
    steps_of_y, grad_gain, grad_bias = norm_backward(grad_steps, y, affine, spec, wanted.affine)
    sums = (_summed(grad, value, of) for grad, value, of in zip(grad_learned, given, axes, strict=True))
    found = Gradients(
        None,
        grad_gain,
        grad_bias,
        _summed(grad_thresholds, thresholds, "TC") if wanted.thresholds else None,
        _summed(grad_widths, widths, "TC") if wanted.widths else None,
        tuple(next(sums) if wants else None for wants in wanted.values),
    )
    return found, steps_of_y, of_state


def _laid_out(value: Tensor, axes: str, step: Tensor, spec: Spec) -> Learned:
    """A learned value, so that its gradient is summed as the norm's sums are; those of steps one by one."""
    if axes in ("T", "TC"):
        return tuple(spec.laid_out(each, step) for each in value.unbind(0))
    return spec.laid_out(value, step, each=axes == "each") if axes in ("", "C", "each") else value


def _summed(grad: Learned, value: Tensor, axes: str) -> Tensor:
    """The gradient of `value` from that of `_laid_out`."""
    if isinstance(grad, tuple):
        return torch.stack([_summed(of_step, of, "C") for of_step, of in zip(grad, value.unbind(0), strict=True)])
    if axes == "each":
        return grad.sum(-3).sum((-2, -1))
    if axes not in ("", "C"):
        return grad
    sums = grad.sum(0).flatten()
    return sums if value.ndim else sums.sum()


def _moments(
    potentials: list[Tensor], shifts: Tensor | None, y: Tensor, spec: Spec
) -> tuple[Tensor | None, Tensor | None]:
    """Mean and variance of u at each step, [T]; None without `shifts`."""
    if shifts is None:
        return None, None
    found = [moments_of(u, shifts[t], spec) for t, u in enumerate(potentials)]
    return torch.stack([mean for mean, _ in found]), torch.stack([squares for _, squares in found]) / step_count(
        y, spec
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
