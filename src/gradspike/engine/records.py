"""Arguments and results of the kernels, which `formulas` defines.

Values come in one of two arrangements, each a view of the tensor's memory:

    rows    [T, P, Q, C]   channels-last; summing over Q, then P, covers all values of a channel
    planes  [T, P, C, S]   contiguous; likewise summing over S, then P

T of y is 1 if the input is the same at every step. Per-channel tensors are [C], thresholds and widths [T] or [T, C].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from torch import Tensor

from gradspike.engine.steps import Noise, Rules
from gradspike.neurons.base import State
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
        rules: of the neuron; None for the standard one, which has formulas of its own.
        follows_end: the neuron needs the state after the last step; see `Fired`.
        chunks: number of steps of each chunk, if the steps are computed in several; see `chunks`.
    """

    time_steps: int
    arrangement: Literal["rows", "planes"]
    norm: Literal["batch", "given", "none"]
    eps: float
    surrogate: Surrogate
    detach_reset: bool = False
    smooth: bool = False
    rules: Rules | None = None
    follows_end: bool = False
    chunks: tuple[int, ...] = ()

    def spread(self, value: Tensor) -> Tensor:
        """A scalar or [C] tensor, shaped to broadcast against one step; a tensor with a step's axes as it is."""
        if value.ndim > 1:
            return value
        return value.unsqueeze(-1) if value.ndim and self.arrangement == "planes" else value

    def laid_out(self, value: Tensor, step: Tensor, each: bool = False) -> Tensor:
        """A scalar or [C] tensor, spread over the axes P and C of a step; with `each`, every scalar of an array.

        The gradient of the result is a sum within parts of the step alone, as the first of `channel_sums`, so one pass
        over the values computes both.
        """
        part = step[:, :1] if self.arrangement == "rows" else step[:, :, :1]
        if each:
            return value[..., None, None, None].expand(*value.shape, *part.shape)
        return self.spread(value).expand(part.shape)

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
        thresholds, widths: [T] or [T, C], in the recursion's dtype.
        values: of the neuron, in the order of its `axes`, in the same dtype; of the standard neuron its decay.
        noise: see `steps.Noise`.
        states: of `Fired`, in the backward pass.
    """

    y: Tensor
    affine: Affine
    thresholds: Tensor
    widths: Tensor
    values: tuple[Tensor, ...]
    noise: Noise | None = None
    states: tuple[State, ...] = ()

    @property
    def decay(self) -> Tensor:
        """The decay factor of the standard neuron."""
        (decay,) = self.values
        return decay

    def flat(self) -> tuple[Tensor | None, ...]:
        """All tensors as one flat tuple, as autograd saves them."""
        states = [part for state in self.states for part in state]
        noise = self.noise or (None, None)
        return self.y, *self.affine, self.thresholds, self.widths, *noise, *self.values, *states

    @classmethod
    def of(cls, flat: Sequence[Any], values: int, chunks: int) -> Inputs:
        """The inverse of `flat`, for so many values of the neuron and chunks of steps."""
        y, gain, bias, mean, inverse, thresholds, widths, seed, share, *rest = flat
        noise = None if seed is None else Noise(seed, share)
        of_neuron, parts = tuple(rest[:values]), rest[values:]
        each = len(parts) // max(chunks, 1)
        states = tuple(tuple(parts[each * chunk : each * (chunk + 1)]) for chunk in range(chunks))
        return cls(y, Affine(gain, bias, mean, inverse), thresholds, widths, of_neuron, noise, states)


class Part(NamedTuple):
    """One chunk of steps among others.

    Attributes:
        state: before the first step.
        into: what receives the result, one tensor for each step: spikes in the forward pass, gradients of y in the
            backward pass (one tensor, in the recursion's dtype, if y is the same at every step).
        after: in the backward pass, the gradient of the state after the last step.
    """

    state: State
    into: tuple[Tensor, ...]
    after: State = ()


class Step(NamedTuple):
    """A step that has been charged and measured, but not fired: u, its threshold and width ([] or [C]), the tensor that
    receives its spikes; the state it was charged from and the neuron's values then (both empty for the standard one).
    """

    u: Tensor
    threshold: Tensor
    width: Tensor
    spikes: Tensor
    state: State = ()
    values: tuple[Tensor, ...] = ()


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

    Both variances are biased. `end`: if the neuron follows it, see `steps.end_of_fired`. `states`: before each chunk
    but the first, which the backward pass needs.
    """

    spikes: Tensor
    batch_mean: Tensor | None
    batch_variance: Tensor | None
    u_mean: Tensor | None
    u_variance: Tensor | None
    end: tuple[Tensor, Tensor] | None = None
    states: tuple[State, ...] = ()


class Gradients(NamedTuple):
    """Gradients of `Inputs`; None if not wanted, or of y if a `Part` receives it."""

    y: Tensor | None
    gain: Tensor | None
    bias: Tensor | None
    thresholds: Tensor | None
    widths: Tensor | None
    values: tuple[Tensor | None, ...]


class Wanted(NamedTuple):
    """The gradients to compute besides that of y."""

    affine: bool
    thresholds: bool
    widths: bool
    values: tuple[bool, ...]
