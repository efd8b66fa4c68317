"""Parts of the formulas that every neuron shares: the norm before the recursion, its backward pass, and sums.

With gain g, bias b, mean m and inverse standard deviation r, the current is x = (y - m) r g + b.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gradspike.engine.records import Affine, Spec

MOST_RECOMPUTED = 2
"""Time steps up to which each pass over memory of a compiled kernel on a CPU computes a layer's values again."""


def batch_statistics(y: Tensor, dtype: torch.dtype, spec: Spec) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each channel over all steps of y, [C]."""
    first = spec.first(y[0]).to(dtype)
    count = spec.count(y)
    sums, squares = _shifted_sums([step.to(dtype) for step in y.unbind(0)], first, spec)
    offset = sums / count
    return first + offset, (squares / count - offset.square()).clamp_min(0)


def inverse_std(variance: Tensor, spec: Spec) -> Tensor:
    """r = 1 / sqrt(variance + eps)."""
    return torch.rsqrt(variance + spec.eps)


def stored(value: Tensor) -> Tensor:
    """The same tensor, which a compiled kernel for a CPU then computes once and stores.

    Inductor otherwise inlines it. Of a [C] tensor, that is a division or square root for every element of a layer.
    `as_strided` needs memory of its own.
    """
    return value.as_strided(value.shape, value.stride()) if value.device.type == "cpu" else value


def norm_backward(
    grad_current: list[Tensor], y: Tensor, affine: Affine, spec: Spec, wanted: bool, lean: bool = False
) -> tuple[Tensor | list[Tensor], Tensor | None, Tensor | None]:
    """Gradients of the steps of y, of gain and bias, from those of the currents; gain and bias are None if not `wanted`
    or needed. The steps of y come as a list; if `lean`, perhaps as one tensor in the dtype of y.

    lean: between its passes over memory, a compiled kernel stores no more than it has to; see `formulas.backward`.
    """
    if spec.norm == "none" or affine.gain is None or affine.mean is None:
        return grad_current, None, None
    dtype = grad_current[0].dtype
    deviations = [step.to(dtype) - spec.spread(affine.mean) for step in y.unbind(0)]
    gain = affine.gain if affine.inverse is None else affine.gain * affine.inverse
    grad_bias = grad_gain = None
    if wanted or spec.norm == "batch":
        grad_bias = total_of(grad_current, spec, lean)
        grad_gain = total_of([g * d for g, d in zip(grad_current, deviations, strict=True)], spec, lean)
        if affine.inverse is not None:
            grad_gain = grad_gain * affine.inverse
    if spec.norm == "given" or grad_gain is None or grad_bias is None or affine.inverse is None:
        return [spec.spread(gain) * g for g in grad_current], grad_gain, grad_bias
    # dL/dy = g r (dL/dx - mean(dL/dx) - (y - m) r mean(dL/dx (y - m) r))
    count = spec.count(y)
    offset = spec.spread(stored(gain * grad_bias / count))
    slope = spec.spread(stored(gain * affine.inverse * grad_gain / count))
    if lean:
        # Gradients wait for the sums in the dtype of y, as those of the ANN twin do. A stack has memory of its own.
        waiting = torch.stack([g.to(y.dtype) for g in grad_current]).to(dtype)
        deviation = y.to(dtype) - spec.spread(affine.mean)
        return (spec.spread(gain) * waiting - slope * deviation - offset).to(y.dtype), grad_gain, grad_bias
    grad_y = [spec.spread(gain) * g - slope * d - offset for g, d in zip(grad_current, deviations, strict=True)]
    return grad_y, grad_gain, grad_bias


def joined(steps: Tensor | list[Tensor], dtype: torch.dtype) -> Tensor:
    """The gradient of y from the result of `norm_backward`."""
    return steps if isinstance(steps, Tensor) else torch.stack([step.to(dtype) for step in steps])


def add_through_statistics(grad_y: Tensor, y: Tensor, slope: Tensor, offset: Tensor, spec: Spec) -> None:
    """Complete a gradient of y that treats the norm's statistics as constants: grad_y -= slope y + offset.

    grad_y, y: any number of steps. slope, offset: [C], see `norms.synced.statistics_terms`.
    """
    correction = y.to(slope.dtype) * spec.spread(slope) + spec.spread(offset)
    grad_y.copy_(grad_y.to(slope.dtype) - correction)


def current_at(y: Tensor, t: int, affine: Affine, dtype: torch.dtype, spec: Spec) -> Tensor:
    """x[t] of one step, in the recursion's dtype."""
    step = y[0 if y.shape[0] == 1 else t].to(dtype)
    return _normalised(step, Affine(*(None if value is None else spec.spread(value) for value in affine)))


def first_current_at(y: Tensor, t: int, affine: Affine, dtype: torch.dtype, spec: Spec) -> Tensor:
    """x[t] of the first value of each channel, [C]."""
    return _normalised(spec.first(y[0 if y.shape[0] == 1 else t]).to(dtype), affine)


def _normalised(value: Tensor, affine: Affine) -> Tensor:
    if affine.gain is None or affine.bias is None or affine.mean is None:
        return value
    gain = affine.gain if affine.inverse is None else affine.gain * affine.inverse
    return (value - affine.mean) * gain + affine.bias


def moments_of(u: Tensor, first: Tensor, spec: Spec) -> tuple[Tensor, Tensor]:
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
    return spec.channel_sums(sum_of(differences)), spec.channel_sums(sum_of([d * d for d in differences]))


def sum_of(parts: list[Tensor]) -> Tensor:
    """The sum of tensors of equal shape."""
    result = parts[0]
    for part in parts[1:]:
        result = result + part
    return result


def total_of(steps: list[Tensor], spec: Spec, lean: bool) -> Tensor:
    """The sum of all steps and all values of each channel, [C]. lean: see `norm_backward`."""
    total = sum_of(steps)
    return spec.channel_sums(stored(total) if lean else total)


def sum_like(step: Tensor, like: Tensor, spec: Spec) -> Tensor:
    """Sum over all elements, [] or [C] as `like`."""
    sums = spec.channel_sums(step)
    return sums if like.ndim else sums.sum()


def step_count(y: Tensor, spec: Spec) -> int:
    """Number of elements of one step, over all channels."""
    return y.shape[1] * y.shape[2] * y.shape[3]
