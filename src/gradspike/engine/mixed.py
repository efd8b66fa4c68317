"""Norm and neuron of a layer whose potentials are a `Mixture` of the currents of all steps, as PSN's are.

With the norm's deviations d[j] = y[j] - mean and its factor f = gain / std, what meets the threshold is an affine map
of each channel's deviations:

    v[t] = u[t] - theta[t] = sum_j A[t, j] d[j] + c[t]
    A[t, j] = W[t, j] f                                c[t] = b[t] - theta[t] + beta sum_j W[t, j]

A and c are computed once for each channel. In the backward pass, with e[t] = dL/dv[t], the sums over values are
S[t] = sum e[t] and S[t, j] = sum e[t] d[j] of each channel. The gradients of W, b, theta, gain and beta follow from
them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from gradspike.engine.norm_formulas import (
    batch_statistics,
    inverse_std,
    moments_of,
    step_count,
    stored,
    sum_like,
    sum_of,
)
from gradspike.engine.records import Arriving, Fired, Gradients, Inputs, Spec, Wanted
from gradspike.engine.steps import Rules
from gradspike.neurons.base import Mixture, Neuron, is_mixture


def describes(inputs: Inputs, spec: Spec, rules: Rules) -> bool:
    """Whether these formulas describe the layer."""
    plain = rules.neuron.fire is Neuron.fire and not (rules.smooth or rules.scaled or spec.follows_end)
    return is_mixture(rules.neuron) and plain and inputs.noise is None


class _Map(NamedTuple):
    """The affine map from deviations to v.

    Attributes:
        deviations: d, T of them; one if y is the same at every step.
        rows: A [T, J] or [T, J, C] for the J deviations.
        offsets: c [T] or [T, C].
        weights: W [T, J]; with one deviation, the sum of each row.
        counts: which of `rows` are used, as in `Mixture`.
        factor: f [C]; None without a norm, and then A is W.
    """

    deviations: list[Tensor]
    rows: Tensor
    offsets: Tensor
    weights: Tensor
    counts: list[list[bool]]
    factor: Tensor | None

    def potentials(self, spec: Spec) -> list[Tensor]:
        """v of all steps."""
        found = []
        for row, offset, counts in zip(self.rows.unbind(0), self.offsets.unbind(0), self.counts, strict=True):
            terms = zip(row.unbind(0), self.deviations, counts, strict=True)
            found.append(sum_of([spec.spread(a) * d for a, d, counted in terms if counted]) + spec.spread(offset))
        return found


def forward(inputs: Inputs, shifts: Tensor | None, spec: Spec, rules: Rules) -> Fired:
    """See `formulas.forward`."""
    y, affine, thresholds, *_ = inputs
    mean = variance = None
    if spec.norm == "batch" and affine.mean is None:
        mean, variance = batch_statistics(y, thresholds.dtype, spec)
        inputs = inputs._replace(affine=affine._replace(mean=mean, inverse=stored(inverse_std(variance, spec))))
    potentials = _map(inputs, spec, rules).potentials(spec)
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
    y, affine, thresholds, *_ = inputs
    layer = _map(inputs, spec, rules)
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
            grad_values = _of_values(of_step, of_pair, layer, inputs, spec, rules, wanted)

    grad_y = []
    for j, d in enumerate(layer.deviations):
        used = [(layer.rows[t, j], e) for t, e in enumerate(errors) if layer.counts[t][j]]
        grad_y.append(sum_of([spec.spread(a) * e for a, e in used]) if used else torch.zeros_like(d))
    if batch and layer.factor is not None and affine.inverse is not None and grad_gain is not None:
        assert grad_bias is not None
        count = spec.count(y)
        offset = spec.spread(stored(layer.factor * grad_bias / count))
        slope = spec.spread(stored(layer.factor * affine.inverse * grad_gain / count))
        grad_y = [g - slope * d - offset for g, d in zip(grad_y, layer.deviations, strict=True)]
    return Gradients(
        torch.stack([g.to(y.dtype) for g in grad_y]), grad_gain, grad_bias, grad_thresholds, grad_widths, grad_values
    )


def _map(inputs: Inputs, spec: Spec, rules: Rules) -> _Map:
    y, affine, thresholds, *_ = inputs
    weights, biases, counts = _mixture(inputs.values, spec, rules)
    used = [list(row) for row in counts]
    if y.shape[0] == 1:
        weights = weights.sum(1, keepdim=True)
        used = [[True] for _ in counts]
    steps = [step.to(thresholds.dtype) for step in y.unbind(0)]
    if affine.gain is None or affine.bias is None or affine.mean is None:
        offsets = biases.view(-1, *[1] * (thresholds.ndim - 1)) - thresholds
        return _Map(steps, weights, offsets, weights, used, None)
    factor = affine.gain if affine.inverse is None else affine.gain * affine.inverse
    mean = spec.spread(affine.mean)
    level = biases.unsqueeze(1) - (thresholds if thresholds.ndim > 1 else thresholds.unsqueeze(1))
    offsets = stored(level + affine.bias * weights.sum(1, keepdim=True))
    return _Map([step - mean for step in steps], stored(weights.unsqueeze(-1) * factor), offsets, weights, used, factor)


def _errors(
    layer: _Map, inputs: Inputs, arriving: Arriving, spec: Spec, rules: Rules, wanted: Wanted
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


def _sums(errors: list[Tensor], layer: _Map, spec: Spec) -> tuple[Tensor, Tensor]:
    """S of steps [T, C] and of pairs [T, J, C]; 0 where a pair is not used."""
    axis = 1 if spec.arrangement == "rows" else 2
    parts = [e.sum(axis) for e in errors]
    unused = torch.zeros_like(parts[0])
    for e, counts in zip(errors, layer.counts, strict=True):
        parts += [(e * d).sum(axis) if c else unused for d, c in zip(layer.deviations, counts, strict=True)]
    sums = torch.stack(parts).sum(1)
    return sums[: len(errors)], torch.unflatten(sums[len(errors) :], 0, (len(errors), -1))


def _mixture(values: tuple[Tensor, ...], spec: Spec, rules: Rules) -> Mixture:
    named = dict(zip(rules.neuron.axes, values, strict=True))
    mixture = rules.neuron.mixture(named, rules.options, spec.time_steps)
    assert mixture is not None
    return mixture


def _of_values(
    of_step: Tensor, of_pair: Tensor, layer: _Map, inputs: Inputs, spec: Spec, rules: Rules, wanted: Wanted
) -> tuple[Tensor | None, ...]:
    """Gradients of the neuron's values, through those of W and b. What that of a weight 0 is does not matter."""
    # dL/dW[t, j] = sum e[t] x[j], and x[j] = f d[j] + beta.
    of_weights = of_pair
    if layer.factor is not None and inputs.affine.bias is not None:
        of_weights = of_pair * layer.factor + inputs.affine.bias * of_step.unsqueeze(1)
    of_weights = of_weights.sum(-1)

    def mixed(*values: Tensor) -> tuple[Tensor, Tensor]:
        mixture = _mixture(values, spec, rules)
        return mixture.weights, mixture.biases

    vjp: Any = torch.func.vjp
    _, pull = vjp(mixed, *inputs.values)
    found = pull((of_weights.expand(spec.time_steps, spec.time_steps), of_step.sum(-1)))
    return tuple(grad if wants else None for grad, wants in zip(found, wanted.values, strict=True))
