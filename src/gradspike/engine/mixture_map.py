"""The map from a layer's input to its potentials, if these are a `Mixture` of the currents of all steps, as PSN's are.

With the norm's deviations d[j] = y[j] - mean and its factor f = gain / std, what meets the threshold is an affine map
of each channel's deviations:

    v[t] = u[t] - theta[t] = sum_j A[t, j] d[j] + c[t]
    A[t, j] = W[t, j] f                                c[t] = b[t] - theta[t] + beta sum_j W[t, j]

A and c are computed once for each channel. Where so many steps mix that a kernel does not sum over each pair of them
(`MOST_PAIRS`), it computes the currents x[j] = f d[j] + beta instead, and v[t] = sum_j W[t, j] x[j] + b[t] - theta[t].
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gradspike.engine.norm_formulas import stored, sum_of
from gradspike.engine.records import Affine, Inputs, Spec
from gradspike.engine.steps import Rules
from gradspike.neurons.base import Mixture

MOST_PAIRS = 20
"""Pairs of steps up to which a backward kernel sums over each by itself: all pairs at T = 4, and a window of two steps
at T = 10. The product of matrices takes 0.8 of the time of 64 pairs, and 1.4 of that of 16."""


@dataclass(frozen=True)
class MixtureMap:
    """The map of one layer.

    Attributes:
        sources: d or x, T of them; one if y is the same at every step.
        rows: A [T, J, C], or W [T, J], for the J sources.
        offsets: c [T] or [T, C].
        weights: W [T, J]; with one source, the sum of each row.
        counts: which of `rows` are used, as in `Mixture`.
        factor: f [C], if the sources are d; None if they are x.
    """

    sources: list[Tensor]
    rows: Tensor
    offsets: Tensor
    weights: Tensor
    counts: list[list[bool]]
    factor: Tensor | None

    @classmethod
    def of(cls, inputs: Inputs, spec: Spec, rules: Rules) -> MixtureMap:
        """The map for these inputs, with mean and inverse of the norm."""
        y, affine, thresholds, *_ = inputs
        mixture = mixture_of(inputs.values, spec, rules)
        weights, counts = mixture.weights, [list(row) for row in mixture.counts]
        if y.shape[0] == 1:
            weights = weights.sum(1, keepdim=True)
            counts = [[True] for _ in counts]
        steps = [step.to(thresholds.dtype) for step in y.unbind(0)]
        factor = _factor(affine)
        if factor is None or affine.bias is None or affine.mean is None or _many(counts):
            biases = mixture.biases.view(-1, *[1] * (thresholds.ndim - 1))
            return cls(_currents(steps, factor, affine, spec), weights, biases - thresholds, weights, counts, None)
        mean = spec.spread(affine.mean)
        level = mixture.biases.unsqueeze(1) - (thresholds if thresholds.ndim > 1 else thresholds.unsqueeze(1))
        offsets = stored(level + affine.bias * weights.sum(1, keepdim=True))
        rows = stored(weights.unsqueeze(-1) * factor)
        return cls([step - mean for step in steps], rows, offsets, weights, counts, factor)

    @property
    def has_many_pairs(self) -> bool:
        """Whether the backward pass takes the product of matrices."""
        return _many(self.counts)

    def with_sources(self, sources: Tensor) -> MixtureMap:
        """The same map of these tensors [J, ...], which have the values of its sources."""
        return replace(self, sources=list(sources.unbind(0)))

    def potentials(self, spec: Spec) -> list[Tensor]:
        """v of all steps."""
        found = []
        for row, offset, counts in zip(self.rows.unbind(0), self.offsets.unbind(0), self.counts, strict=True):
            terms = zip(row.unbind(0), self.sources, counts, strict=True)
            found.append(sum_of([spec.spread(a) * d for a, d, counted in terms if counted]) + spec.spread(offset))
        return found

    def transposed(self, errors: list[Tensor], spec: Spec) -> list[Tensor]:
        """The gradients of the sources, from those of v."""
        found = []
        for j, source in enumerate(self.sources):
            used = [(self.rows[t, j], e) for t, e in enumerate(errors) if self.counts[t][j]]
            found.append(sum_of([spec.spread(a) * e for a, e in used]) if used else torch.zeros_like(source))
        return found


def mixture_of(values: tuple[Tensor, ...], spec: Spec, rules: Rules) -> Mixture:
    """The neuron's mixture with these values."""
    named = dict(zip(rules.neuron.axes, values, strict=True))
    mixture = rules.neuron.mixture(named, rules.options, spec.time_steps)
    assert mixture is not None
    return mixture


def _many(counts: list[list[bool]]) -> bool:
    return sum(map(sum, counts)) > MOST_PAIRS


def _factor(affine: Affine) -> Tensor | None:
    if affine.gain is None or affine.inverse is None:
        return affine.gain
    return affine.gain * affine.inverse


def _currents(steps: list[Tensor], factor: Tensor | None, affine: Affine, spec: Spec) -> list[Tensor]:
    if factor is None or affine.bias is None or affine.mean is None:
        return steps
    # As `current_at`, whose product of gain and inverse a compiled kernel would compute again for every value.
    mean, scale, shift = spec.spread(affine.mean), spec.spread(stored(factor)), spec.spread(affine.bias)
    return [(step - mean) * scale + shift for step in steps]
