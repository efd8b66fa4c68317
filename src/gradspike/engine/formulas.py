"""Norm and neuron of one layer over all its time steps, as one forward and one backward formula.

The fast engines run these formulas. The backward pass recomputes the potential from the layer's input, so only the
input is kept. They are plain functions of tensors: torch.compile turns them into kernels, and tests also run them
directly.

Values come in one of two arrangements, each a view of the tensor's memory:

    rows    [T, P, Q, C]   channels-last; summing over Q, then P, covers all values of a channel
    planes  [T, P, C, S]   contiguous; likewise summing over S, then P

T of y is 1 if the input is the same at every step. Per-channel tensors are [C], thresholds and widths [T] or [T, C].
With gain g, bias b, mean m and inverse standard deviation r, the current is x = (y - m) r g + b.

The path through a layer: `_normalised` (norm to current), then `charge` and `fire` of `neurons.recursion`. `forward`
does so when the thresholds are known in advance, `advance` when the method first measures the potential.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from gradspike.neurons.recursion import charge, fire, membrane_adjoint, spike_adjoint
from gradspike.surrogate import Surrogate


@dataclass(frozen=True)
class Spec:
    """Constants of a compiled formula.

    Attributes:
        time_steps: T.
        arrangement: of y, spikes and their gradients; see the module docstring.
        norm: batch: normalise by this batch | given: by given statistics | none: y is the current.
        eps: added to the variance.
        surrogate: shape of the surrogate gradient.
        detach_reset: no gradient through the reset.
        smooth: emit the surrogate's primitive; see `neurons.recursion.fire`.
    """

    time_steps: int
    arrangement: Literal["rows", "planes"]
    norm: Literal["batch", "given", "none"]
    eps: float
    surrogate: Surrogate
    detach_reset: bool = False
    smooth: bool = False

    def spread(self, value: Tensor) -> Tensor:
        """A scalar or [C] tensor, shaped to broadcast against one step."""
        return value.unsqueeze(-1) if value.ndim and self.arrangement == "planes" else value

    def channel_sums(self, step: Tensor) -> Tensor:
        """Sum over everything but the channels, [C]: first within parts that fit a cache, then over the parts."""
        return step.sum(1 if self.arrangement == "rows" else 2).sum(0)

    def first(self, step: Tensor) -> Tensor:
        """The first value of each channel, [C]."""
        return step[0, 0] if self.arrangement == "rows" else step[0, :, 0]

    def count(self, values: Tensor) -> int:
        """Number of values per channel, over all steps."""
        return values.shape[0] * values.shape[1] * values.shape[2 if self.arrangement == "rows" else 3]


class Affine(NamedTuple):
    """Parameters and statistics of a layer's norm, each [C] or absent; see the module docstring."""

    gain: Tensor | None = None
    bias: Tensor | None = None
    mean: Tensor | None = None
    inverse: Tensor | None = None


class Inputs(NamedTuple):
    """Inputs of a layer; `Gradients` has the gradient of each.

    Attributes:
        y: input of the norm, in the arrangement of the module docstring.
        affine: parameters and statistics of the norm.
        decay: scalar, in the recursion's dtype.
        thresholds, widths: [T] or [T, C].
    """

    y: Tensor
    affine: Affine
    decay: Tensor
    thresholds: Tensor
    widths: Tensor

    def flat(self) -> tuple[Tensor | None, ...]:
        """All tensors as one flat tuple, as autograd saves them."""
        return self.y, *self.affine, self.decay, self.thresholds, self.widths

    @classmethod
    def of(cls, flat: Sequence[Any]) -> Inputs:
        """The inverse of `flat`."""
        y, gain, bias, mean, inverse, decay, thresholds, widths = flat
        return cls(y, Affine(gain, bias, mean, inverse), decay, thresholds, widths)


class Step(NamedTuple):
    """A step that has been charged and measured, but not fired: u, its threshold and width ([] or [C]), and the tensor
    that receives its spikes.
    """

    u: Tensor
    threshold: Tensor
    width: Tensor
    spikes: Tensor


class Arriving(NamedTuple):
    """Incoming gradients of a layer: of its spikes [T, ...] and of mean and variance of u [T]; None if unused.

    `mean` is the mean of u [T], needed for the gradient of the variance.
    """

    spikes: Tensor
    u_mean: Tensor | None = None
    u_variance: Tensor | None = None
    mean: Tensor | None = None


class Fired(NamedTuple):
    """Result of a forward pass: spikes [T, ...] and, if computed, mean and variance of the batch [C] and of u [T].

    Both variances are biased.
    """

    spikes: Tensor
    batch_mean: Tensor | None
    batch_variance: Tensor | None
    u_mean: Tensor | None
    u_variance: Tensor | None


class Gradients(NamedTuple):
    """Gradients of `Inputs`; None if not wanted."""

    y: Tensor
    gain: Tensor | None
    bias: Tensor | None
    decay: Tensor | None
    thresholds: Tensor | None
    widths: Tensor | None


class Wanted(NamedTuple):
    """The gradients to compute besides that of y."""

    affine: bool
    decay: bool
    thresholds: bool
    widths: bool


def batch_statistics(y: Tensor, dtype: torch.dtype, spec: Spec) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each channel over all steps of y, [C]."""
    first = spec.first(y[0]).to(dtype)
    count = spec.count(y)
    sums, squares = _shifted_sums([step.to(dtype) for step in y.unbind(0)], first, spec)
    offset = sums / count
    return first + offset, (squares / count - offset.square()).clamp_min(0)


def first_potentials(inputs: Inputs, spec: Spec) -> Tensor:
    """u of the first value of each channel at each step, [T, C]; sums over u are shifted by it.

    A few small operations, not worth compiling.
    """
    y, affine, decay, thresholds, widths = inputs
    potentials: list[Tensor] = []
    u = s = torch.zeros_like(spec.first(y[0]), dtype=decay.dtype)
    for t in range(spec.time_steps):
        u = charge(_first_current(y, t, affine, decay.dtype, spec), u, s, decay)
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
    y, affine, decay, thresholds, widths = inputs
    mean = variance = None
    if spec.norm == "batch" and affine.mean is None:
        mean, variance = batch_statistics(y, decay.dtype, spec)
        affine = affine._replace(mean=mean, inverse=inverse_std(variance, spec))
    spikes: list[Tensor] = []
    moments: list[tuple[Tensor, Tensor]] = []
    u: Tensor | None = None
    s: Tensor | None = None
    for t in range(spec.time_steps):
        x = _current(y, t, affine, decay.dtype, spec)
        u = x if u is None or s is None else charge(x, u, s, decay)
        s = _fire(u, thresholds[t], widths[t], spec)
        spikes.append(s.to(y.dtype))
        if shifts is not None:
            moments.append(_moments(u, shifts[t], spec))
    count = _step_count(y, spec)
    return Fired(
        torch.stack(spikes),
        mean,
        variance,
        torch.stack([mean for mean, _ in moments]) if moments else None,
        torch.stack([squares for _, squares in moments]) / count if moments else None,
    )


def advance(
    y: Tensor, previous: Step | None, affine: Affine, decay: Tensor, spec: Spec
) -> tuple[Tensor, Tensor, Tensor]:
    """One step, if the threshold depends on the potential: fire the previous step, then charge and measure this one.

    Args:
        y: input of this step, [1, ...].
        previous: the previous step; None at the first step.
        affine, decay, spec: as in `forward`.

    Returns u of this step in the recursion's dtype, its mean, and its sum of squared deviations over all elements.
    """
    x = _current(y, 0, affine, decay.dtype, spec)
    # u of one value per channel is computed separately; read from u, it would wait for all of u.
    first_x = _first_current(y, 0, affine, decay.dtype, spec)
    if previous is None:
        return x, *_moments(x, first_x, spec)
    s = _fire(previous.u, previous.threshold, previous.width, spec)
    previous.spikes.copy_(s)
    first_u = spec.first(previous.u)
    first_s = fire(first_u, previous.threshold, previous.width, spec.surrogate, spec.smooth).to(decay.dtype)
    charged = charge(x, previous.u, s, decay)
    return charged, *_moments(charged, charge(first_x, first_u, first_s, decay), spec)


def finish(last: Step, spec: Spec) -> None:
    """Fire the last step of `advance`."""
    last.spikes.copy_(_fire(last.u, last.threshold, last.width, spec))


def backward(inputs: Inputs, arriving: Arriving, spec: Spec, wanted: Wanted) -> Gradients:
    """Gradients of the inputs of `forward`, or of `advance` over all steps. Recomputes u.

    inputs: with the mean and inverse of the forward pass.
    """
    y, affine, decay, thresholds, widths = inputs
    dtype = decay.dtype
    potentials: list[Tensor] = []
    spikes: list[Tensor] = []
    for t in range(spec.time_steps):
        x = _current(y, t, affine, dtype, spec)
        u = charge(x, potentials[-1], spikes[-1], decay) if potentials else x
        potentials.append(u)
        spikes.append(_fire(u, thresholds[t], widths[t], spec))

    count = _step_count(y, spec)
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
            grad_thresholds.append(-_sum_like(adjoint * h, thresholds[t], spec))
        if wanted.widths:
            grad_widths.append(_sum_like(adjoint * spec.surrogate.width_derivative(v, kappa), widths[t], spec))
        grad_u = membrane_adjoint(adjoint, grad_u, h, s, decay)
        if arriving.u_mean is not None:
            grad_u = grad_u + arriving.u_mean[t] / count
        if arriving.u_variance is not None and arriving.mean is not None:
            grad_u = grad_u + arriving.u_variance[t] * (2 / count) * (u - arriving.mean[t])
        if wanted.decay and t > 0:
            grad_decay.append(grad_u * potentials[t - 1] * (1 - spikes[t - 1]))
        grad_current.append(grad_u)
    grad_current.reverse()
    if y.shape[0] == 1:
        grad_current = [_sum(grad_current)]

    grad_y, grad_gain, grad_bias = _norm_backward(grad_current, y, affine, spec, wanted.affine)
    zero = torch.zeros_like(decay)
    return Gradients(
        grad_y,
        grad_gain,
        grad_bias,
        (spec.channel_sums(_sum(grad_decay)).sum() if grad_decay else zero) if wanted.decay else None,
        torch.stack(grad_thresholds[::-1]) if wanted.thresholds else None,
        torch.stack(grad_widths[::-1]) if wanted.widths else None,
    )


def inverse_std(variance: Tensor, spec: Spec) -> Tensor:
    """r = 1 / sqrt(variance + eps)."""
    return torch.rsqrt(variance + spec.eps)


def _norm_backward(
    grad_current: list[Tensor], y: Tensor, affine: Affine, spec: Spec, wanted: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    if spec.norm == "none" or affine.gain is None or affine.mean is None:
        return torch.stack(grad_current).to(y.dtype), None, None
    dtype = grad_current[0].dtype
    deviations = [step.to(dtype) - spec.spread(affine.mean) for step in y.unbind(0)]
    gain = affine.gain if affine.inverse is None else affine.gain * affine.inverse
    grad_bias = grad_gain = None
    if wanted or spec.norm == "batch":
        grad_bias = spec.channel_sums(_sum(grad_current))
        grad_gain = spec.channel_sums(_sum([g * d for g, d in zip(grad_current, deviations, strict=True)]))
        if affine.inverse is not None:
            grad_gain = grad_gain * affine.inverse
    if spec.norm == "given" or grad_gain is None or grad_bias is None or affine.inverse is None:
        grad_y = [spec.spread(gain) * g for g in grad_current]
    else:
        # dL/dy = g r (dL/dx - mean(dL/dx) - (y - m) r mean(dL/dx (y - m) r))
        count = spec.count(y)
        offset = spec.spread(gain * grad_bias / count)
        slope = spec.spread(gain * affine.inverse * grad_gain / count)
        grad_y = [spec.spread(gain) * g - slope * d - offset for g, d in zip(grad_current, deviations, strict=True)]
    return torch.stack([g.to(y.dtype) for g in grad_y]), grad_gain, grad_bias


def _current(y: Tensor, t: int, affine: Affine, dtype: torch.dtype, spec: Spec) -> Tensor:
    """x[t] of one step, in the recursion's dtype."""
    step = y[0 if y.shape[0] == 1 else t].to(dtype)
    return _normalised(step, Affine(*(None if value is None else spec.spread(value) for value in affine)))


def _first_current(y: Tensor, t: int, affine: Affine, dtype: torch.dtype, spec: Spec) -> Tensor:
    """x[t] of the first value of each channel, [C]."""
    return _normalised(spec.first(y[0 if y.shape[0] == 1 else t]).to(dtype), affine)


def _normalised(value: Tensor, affine: Affine) -> Tensor:
    if affine.gain is None or affine.bias is None or affine.mean is None:
        return value
    gain = affine.gain if affine.inverse is None else affine.gain * affine.inverse
    return (value - affine.mean) * gain + affine.bias


def _fire(u: Tensor, threshold: Tensor, width: Tensor, spec: Spec) -> Tensor:
    return fire(u, spec.spread(threshold), spec.spread(width), spec.surrogate, spec.smooth).to(u.dtype)


def _moments(u: Tensor, first: Tensor, spec: Spec) -> tuple[Tensor, Tensor]:
    """Mean and sum of squared deviations of all elements of u.

    The sums are of differences from the first value of each channel, because a sum of squares in float32 loses a small
    standard deviation next to a large mean. The channels are then pooled (Chan, Golub and LeVeque, 1979).
    """
    count = u.numel() // first.numel()
    sums, squares = _shifted_sums([u], first, spec)
    means = first + sums / count
    mean = means.mean()
    within = (squares - sums.square() / count).clamp_min(0).sum()
    return mean, within + count * (means - mean).square().sum()


def _shifted_sums(steps: list[Tensor], first: Tensor, spec: Spec) -> tuple[Tensor, Tensor]:
    """Sums over all steps of the differences from `first` and of their squares, each [C]."""
    shift = spec.spread(first)
    differences = [step - shift for step in steps]
    return spec.channel_sums(_sum(differences)), spec.channel_sums(_sum([d * d for d in differences]))


def _sum(parts: list[Tensor]) -> Tensor:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def _sum_like(step: Tensor, like: Tensor, spec: Spec) -> Tensor:
    sums = spec.channel_sums(step)
    return sums if like.ndim else sums.sum()


def _step_count(y: Tensor, spec: Spec) -> int:
    """Number of elements of one step, over all channels."""
    return y.shape[1] * y.shape[2] * y.shape[3]
