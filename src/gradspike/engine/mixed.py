"""Norm and neuron of a layer whose potentials are a `Mixture` of the currents of all steps, as PSN's are.

Both passes compute v = u - theta as `MixtureMap` describes. In the backward pass, with e[t] = dL/dv[t], the gradients
of W and b are sums of e[t] x[j] and of e[t] over all values:

- of a few pairs of steps, each sum by itself. S[t] = sum e[t] and S[t, j] = sum e[t] d[j] of each channel give the
  gradients of theta, gain and beta too.
- of many pairs, a product of two matrices with a row for each step. The norm then gets its gradients as before any
  other neuron.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gradspike.engine.mixture_map import MixtureMap, mixture_of
from gradspike.engine.norm_formulas import (
    batch_statistics,
    inverse_std,
    joined,
    moments_of,
    norm_backward,
    step_count,
    stored,
    sum_like,
)
from gradspike.engine.records import Arriving, Fired, Gradients, Inputs, Spec, Wanted
from gradspike.engine.steps import Rules
from gradspike.neurons.base import Neuron, is_mixture


def describes(inputs: Inputs, spec: Spec, rules: Rules) -> bool:
    """Whether these formulas describe the layer."""
    plain = rules.neuron.fire is Neuron.fire and not (rules.smooth or rules.scaled or spec.follows_end)
    return is_mixture(rules.neuron) and plain and inputs.noise is None


def forward(inputs: Inputs, shifts: Tensor | None, spec: Spec, rules: Rules) -> Fired:
    """See `formulas.forward`."""
    y, affine, thresholds, *_ = inputs
    mean = variance = None
    if spec.norm == "batch" and affine.mean is None:
        mean, variance = batch_statistics(y, thresholds.dtype, spec)
        inputs = inputs._replace(affine=affine._replace(mean=mean, inverse=stored(inverse_std(variance, spec))))
    potentials = MixtureMap.of(inputs, spec, rules).potentials(spec)
    above = rules.options.fires == "above_threshold"
    # In the dtype of v first: for a CPU, Inductor does not vectorise the conversion from bool to bfloat16.
    spikes = torch.stack([(v > 0 if above else v >= 0).to(v.dtype).to(y.dtype) for v in potentials])
    if shifts is None:
        return Fired(spikes, mean, variance, None, None)
    potentials = [v + spec.spread(theta) for v, theta in zip(potentials, thresholds.unbind(0), strict=True)]
    moments = [moments_of(u, shift, spec) for u, shift in zip(potentials, shifts.unbind(0), strict=True)]
    squares = torch.stack([squares for _, squares in moments])
    return Fired(spikes, mean, variance, torch.stack([mean for mean, _ in moments]), squares / step_count(y, spec))


def backward(inputs: Inputs, arriving: Arriving, spec: Spec, rules: Rules, wanted: Wanted) -> Gradients:
    """See `formulas.backward`."""
    layer = MixtureMap.of(inputs, spec, rules)
    if layer.has_many_pairs:
        return _by_product(layer, inputs, arriving, spec, rules, wanted)
    return _by_pairs(layer, inputs, arriving, spec, rules, wanted)


def _by_pairs(
    layer: MixtureMap, inputs: Inputs, arriving: Arriving, spec: Spec, rules: Rules, wanted: Wanted
) -> Gradients:
    y, affine, thresholds, *_ = inputs
    errors, grad_widths = _errors(layer, inputs, arriving, spec, rules, wanted)
    batch = spec.norm == "batch"
    wants_affine = layer.factor is not None and (wanted.affine or batch)

    grad_gain = grad_bias = grad_thresholds = None
    grad_values: tuple[Tensor | None, ...] = (None,) * len(inputs.values)
    if wants_affine or wanted.thresholds or any(wanted.values):
        of_step, of_pair = _sums(errors, layer, spec)
        if wants_affine:
            grad_bias = (of_step * layer.weights.sum(1, keepdim=True)).sum(0)
            grad_gain = (of_pair * layer.weights.unsqueeze(-1)).sum(0).sum(0)
            if affine.inverse is not None:
                grad_gain = grad_gain * affine.inverse
        if wanted.thresholds:
            grad_thresholds = -(of_step if thresholds.ndim > 1 else of_step.sum(1))
        if any(wanted.values):
            # dL/dW[t, j] = sum e[t] x[j], and x[j] = f d[j] + beta.
            of_weights = of_pair
            if layer.factor is not None and affine.bias is not None:
                of_weights = of_pair * layer.factor + affine.bias * of_step.unsqueeze(1)
            grad_values = _of_values(of_weights.sum(-1), of_step.sum(-1), inputs, spec, rules, wanted)

    grad_y = layer.transposed(errors, spec)
    if batch and layer.factor is not None and affine.inverse is not None and grad_gain is not None:
        assert grad_bias is not None
        count = spec.count(y)
        offset = spec.spread(stored(layer.factor * grad_bias / count))
        slope = spec.spread(stored(layer.factor * affine.inverse * grad_gain / count))
        grad_y = [g - slope * d - offset for g, d in zip(grad_y, layer.sources, strict=True)]
    return Gradients(joined(grad_y, y.dtype), grad_gain, grad_bias, grad_thresholds, grad_widths, grad_values)


def _by_product(
    layer: MixtureMap, inputs: Inputs, arriving: Arriving, spec: Spec, rules: Rules, wanted: Wanted
) -> Gradients:
    y, affine, thresholds, *_ = inputs
    # A row of ones gives the sums over the errors of each step. `stored`, because the product needs the matrices whole.
    currents = stored(torch.stack([*layer.sources, torch.ones_like(layer.sources[0])]))
    layer = layer.with_sources(currents[:-1])
    errors, grad_widths = _errors(layer, inputs, arriving, spec, rules, wanted)
    steps = stored(torch.stack(errors))
    grad_current = layer.transposed(list(steps.unbind(0)), spec)
    lean = y.device.type == "cpu"
    grad_y, grad_gain, grad_bias = norm_backward(grad_current, y, affine, spec, wanted.affine, lean)

    grad_thresholds = None
    grad_values: tuple[Tensor | None, ...] = (None,) * len(inputs.values)
    each_channel = thresholds.ndim > 1
    if wanted.thresholds and each_channel:
        grad_thresholds = -torch.stack([spec.channel_sums(e) for e in steps.unbind(0)])
    if any(wanted.values) or (wanted.thresholds and not each_channel):
        sums = steps.flatten(1) @ currents.flatten(1).t()
        of_pairs, of_step = sums[:, :-1], sums[:, -1]
        if any(wanted.values):
            grad_values = _of_values(of_pairs, of_step, inputs, spec, rules, wanted)
        if wanted.thresholds and not each_channel:
            grad_thresholds = -of_step
    return Gradients(joined(grad_y, y.dtype), grad_gain, grad_bias, grad_thresholds, grad_widths, grad_values)


def _errors(
    layer: MixtureMap, inputs: Inputs, arriving: Arriving, spec: Spec, rules: Rules, wanted: Wanted
) -> tuple[list[Tensor], Tensor | None]:
    """e of all steps, and the gradient of the widths if it is wanted."""
    count, surrogate = step_count(inputs.y, spec), rules.surrogate
    errors: list[Tensor] = []
    of_widths: list[Tensor] = []
    for t, v in enumerate(layer.potentials(spec)):
        kappa = spec.spread(inputs.widths[t])
        arrived = arriving.spikes[t].to(v.dtype)
        error = arrived * surrogate.derivative(v, kappa)
        if wanted.widths:
            of_widths.append(sum_like(arrived * surrogate.width_derivative(v, kappa), inputs.widths[t], spec))
        if arriving.u_mean is not None:
            error = error + arriving.u_mean[t] / count
        if arriving.u_variance is not None and arriving.mean is not None:
            u = v + spec.spread(inputs.thresholds[t])
            error = error + arriving.u_variance[t] * (2 / count) * (u - arriving.mean[t])
        errors.append(error)
    return errors, torch.stack(of_widths) if wanted.widths else None


def _sums(errors: list[Tensor], layer: MixtureMap, spec: Spec) -> tuple[Tensor, Tensor]:
    """S of steps [T, C] and of pairs [T, J, C]; 0 where a pair is not used."""
    axis = 1 if spec.arrangement == "rows" else 2
    parts = [e.sum(axis) for e in errors]
    unused = torch.zeros_like(parts[0])
    for e, counts in zip(errors, layer.counts, strict=True):
        parts += [(e * d).sum(axis) if c else unused for d, c in zip(layer.sources, counts, strict=True)]
    sums = torch.stack(parts).sum(1)
    return sums[: len(errors)], torch.unflatten(sums[len(errors) :], 0, (len(errors), -1))


def _of_values(
    of_weights: Tensor, of_biases: Tensor, inputs: Inputs, spec: Spec, rules: Rules, wanted: Wanted
) -> tuple[Tensor | None, ...]:
    """Gradients of the neuron's values, through those of W and b. What that of a weight 0 is does not matter."""

    def mixed(*values: Tensor) -> tuple[Tensor, Tensor]:
        mixture = mixture_of(values, spec, rules)
        return mixture.weights, mixture.biases

    vjp: Any = torch.func.vjp
    _, pull = vjp(mixed, *inputs.values)
    found = pull((of_weights.expand(spec.time_steps, spec.time_steps), of_biases))
    return tuple(grad if wants else None for grad, wants in zip(found, wanted.values, strict=True))
