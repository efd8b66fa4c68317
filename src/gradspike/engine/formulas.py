"""Norm and neuron of one layer over all its time steps, as one forward and one backward formula.

The fast engines run these formulas. The backward pass recomputes the potential from the layer's input, so only the
input is kept. They are plain functions of tensors: torch.compile turns them into kernels, and tests also run them
directly. See `records` for the arrangement of values.

The path through a layer: `norm_formulas.current_at` (norm to current), then charge and fire. `forward` does so when the
thresholds are known in advance, `advance` when the method first measures the potential. The standard neuron (leaky,
hard reset to 0) has the formulas below, with a backward pass written by hand. For any other, `derived` takes over.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gradspike.engine import derived
from gradspike.engine.norm_formulas import (
    MOST_RECOMPUTED,
    add_through_statistics,
    batch_statistics,
    current_at,
    first_current_at,
    inverse_std,
    joined,
    moments_of,
    norm_backward,
    step_count,
    stored,
    sum_like,
    sum_of,
    total_of,
)
from gradspike.engine.records import Affine, Arriving, Fired, Gradients, Inputs, Part, Spec, Step, Wanted
from gradspike.engine.steps import Rules
from gradspike.neurons.base import State
from gradspike.neurons.recursion import charge, fire, membrane_adjoint, spike_adjoint

__all__ = [
    "add_through_statistics",
    "advance",
    "backward",
    "backward_part",
    "batch_statistics",
    "finish",
    "first_potentials",
    "forward",
    "forward_part",
]


def first_potentials(inputs: Inputs, spec: Spec) -> Tensor:
    """u of the first value of each channel at each step, [T, C]; sums over u are shifted by it.

    A few small operations, not worth compiling.
    """
    if spec.rules is not None:
        return derived.first_potentials(inputs, spec, spec.rules)
    y, affine, thresholds, widths, (decay,), *_ = inputs
    potentials: list[Tensor] = []
    u = s = torch.zeros_like(spec.first(y[0]), dtype=decay.dtype)
    for t in range(spec.time_steps):
        u = charge(first_current_at(y, t, affine, decay.dtype, spec), u, s, decay)
        s = fire(u, thresholds[t], widths[t], spec.surrogate, spec.smooth).to(u.dtype)
        potentials.append(u)
    return torch.stack(potentials)


def forward(inputs: Inputs, shifts: Tensor | None, spec: Spec) -> Fired:
    """All steps, with thresholds and widths that are known in advance.

    Args:
        inputs: with `spec.norm` "batch", mean and inverse of the norm are computed if absent.
        shifts: result of `first_potentials` if mean and variance of u are wanted.
        spec: see Spec.
    """
    if spec.rules is not None:
        return derived.forward(inputs, shifts, spec, spec.rules)
    y, affine, thresholds, widths, (decay,), *_ = inputs
    mean = variance = None
    if spec.norm == "batch" and affine.mean is None:
        mean, variance = batch_statistics(y, decay.dtype, spec)
        affine = affine._replace(mean=mean, inverse=stored(inverse_std(variance, spec)))
    spikes: list[Tensor] = []
    moments: list[tuple[Tensor, Tensor]] = []
    u: Tensor | None = None
    s: Tensor | None = None
    for t in range(spec.time_steps):
        x = current_at(y, t, affine, decay.dtype, spec)
        u = x if u is None or s is None else charge(x, u, s, decay)
        s = _fire(u, thresholds[t], widths[t], spec)
        spikes.append(s.to(y.dtype))
        if shifts is not None:
            moments.append(moments_of(u, shifts[t], spec))
    count = step_count(y, spec)
    return Fired(
        torch.stack(spikes),
        mean,
        variance,
        torch.stack([mean for mean, _ in moments]) if moments else None,
        torch.stack([squares for _, squares in moments]) / count if moments else None,
    )


def forward_part(
    inputs: Inputs, shifts: Tensor | None, part: Part, spec: Spec
) -> tuple[State, Tensor | None, Tensor | None]:
    """One chunk of steps, of a spec with rules; statistics of the norm are given.

    Returns the state after it, and mean and variance of u [T] if there are `shifts`.
    """
    return derived.forward_part(inputs, shifts, part, spec, _rules(spec))


def advance(
    y: Tensor, previous: Step | None, affine: Affine, values: tuple[Tensor, ...], spec: Spec
) -> tuple[Tensor, Tensor, Tensor, State]:
    """One step, if the threshold depends on the potential: fire the previous step, then charge and measure this one.

    Args:
        y: input of this step, [1, ...].
        previous: the previous step; None at the first step.
        affine: as in `forward`.
        spec: as in `forward`.
        values: of the neuron at this step.

    Returns u of this step in the recursion's dtype, its mean, its sum of squared deviations over all elements, and the
    state that it was charged from (empty for the standard neuron).
    """
    if spec.rules is not None:
        return derived.advance(y, previous, affine, values, spec, spec.rules)
    (decay,) = values
    x = current_at(y, 0, affine, decay.dtype, spec)
    # u of one value per channel is computed separately; read from u, it would wait for all of u.
    first_x = first_current_at(y, 0, affine, decay.dtype, spec)
    if previous is None:
        return x, *moments_of(x, first_x, spec), ()
    s = _fire(previous.u, previous.threshold, previous.width, spec)
    previous.spikes.copy_(s)
    first_u = spec.first(previous.u)
    first_s = fire(first_u, previous.threshold, previous.width, spec.surrogate, spec.smooth).to(decay.dtype)
    charged = charge(x, previous.u, s, decay)
    return charged, *moments_of(charged, charge(first_x, first_u, first_s, decay), spec), ()


def finish(last: Step, spec: Spec) -> None:
    """Fire the last step of `advance`."""
    if spec.rules is not None:
        derived.finish(last, spec, spec.rules)
        return
    last.spikes.copy_(_fire(last.u, last.threshold, last.width, spec))


def backward(inputs: Inputs, arriving: Arriving, spec: Spec, wanted: Wanted) -> Gradients:
    """Gradients of the inputs of `forward`, or of `advance` over all steps. Recomputes u.

    inputs: with the mean and inverse of the forward pass.
    """
    if spec.rules is not None:
        return derived.backward(inputs, arriving, spec, spec.rules, wanted)
    y, affine, thresholds, widths, (decay,), *_ = inputs
    (wants_decay,) = wanted.values
    dtype = decay.dtype
    potentials: list[Tensor] = []
    spikes: list[Tensor] = []
    for t in range(spec.time_steps):
        x = current_at(y, t, affine, dtype, spec)
        u = charge(x, potentials[-1], spikes[-1], decay) if potentials else x
        potentials.append(u)
        spikes.append(_fire(u, thresholds[t], widths[t], spec))

    count = step_count(y, spec)
    grad_u: Tensor | None = None
    grad_current: list[Tensor] = []
    grad_decay: list[Tensor] = []
    grad_thresholds: list[Tensor] = []
    grad_widths: list[Tensor] = []
    for t in reversed(range(spec.time_steps)):
        u, s = potentials[t], spikes[t]
        kappa = spec.spread(widths[t])
        v = u - spec.spread(thresholds[t])
        adjoint = spike_adjoint(arriving.spikes[t].to(dtype), grad_u, u, decay, spec.detach_reset)
        h = spec.surrogate.derivative(v, kappa)
        if wanted.thresholds:
            grad_thresholds.append(-sum_like(adjoint * h, thresholds[t], spec))
        if wanted.widths:
            grad_widths.append(sum_like(adjoint * spec.surrogate.width_derivative(v, kappa), widths[t], spec))
        grad_u = membrane_adjoint(adjoint, grad_u, h, s, decay)
        if arriving.u_mean is not None:
            grad_u = grad_u + arriving.u_mean[t] / count
        if arriving.u_variance is not None and arriving.mean is not None:
            grad_u = grad_u + arriving.u_variance[t] * (2 / count) * (u - arriving.mean[t])
        if wants_decay and t > 0:
            grad_decay.append(grad_u * potentials[t - 1] * (1 - spikes[t - 1]))
        grad_current.append(grad_u)
    grad_current.reverse()
    if y.shape[0] == 1:
        grad_current = [sum_of(grad_current)]

    # For sums over a channel of channels-last values, Inductor makes a pass over memory of its own on a CPU. Left to
    # itself, it stores the potentials and gradients of all steps for it, in float32. Sums of single steps need them.
    passes = spec.arrangement == "rows" and y.device.type == "cpu" and not (wanted.thresholds or wanted.widths)
    lean = passes and len(grad_current) > MOST_RECOMPUTED
    grad_steps, grad_gain, grad_bias = norm_backward(grad_current, y, affine, spec, wanted.affine, lean)
    grad_value = None
    if wants_decay:
        grad_value = total_of(grad_decay, spec, lean).sum() if grad_decay else torch.zeros_like(decay)
    return Gradients(
        joined(grad_steps, y.dtype),
        grad_gain,
        grad_bias,
        torch.stack(grad_thresholds[::-1]) if wanted.thresholds else None,
        torch.stack(grad_widths[::-1]) if wanted.widths else None,
        (grad_value,),
    )


def backward_part(
    inputs: Inputs, arriving: Arriving, part: Part, spec: Spec, wanted: Wanted
) -> tuple[Gradients, State]:
    """Gradients through one chunk of steps, of a spec with rules, and that of the state before it.

    The norm's statistics are constants; `add_through_statistics` completes the gradient of y.
    """
    return derived.backward_part(inputs, arriving, part, spec, _rules(spec), wanted)


def _rules(spec: Spec) -> Rules:
    assert spec.rules is not None
    return spec.rules


def _fire(u: Tensor, threshold: Tensor, width: Tensor, spec: Spec) -> Tensor:
    return fire(u, spec.spread(threshold), spec.spread(width), spec.surrogate, spec.smooth).to(u.dtype)
