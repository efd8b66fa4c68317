"""Arguments and results of all engines, and shared helpers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from gradspike import ranks
from gradspike.engine.noise import new_seed
from gradspike.engine.steps import Noise, Rules
from gradspike.methods.base import LayerFacts, Method
from gradspike.neurons.base import Neuron
from gradspike.neurons.feedback import Feedback
from gradspike.norms.base import ChannelNorm
from gradspike.surrogate import Surrogate


@dataclass(frozen=True)
class EngineOptions:
    """Options of one call.

    `smooth` emits the surrogate's primitive instead of spikes; the backward pass is the exact gradient of that network
    (for gradcheck). `moments` adds differentiable mean and variance of u to the output, `keep_membrane` u itself.
    `potential_norm` normalises the charged potential of each step; u is then its result, which meets the threshold, and
    the reset acts on the charged potential. `feedback` adds to the current of each step what it gives for the values
    that the step before emitted.
    """

    surrogate: Surrogate
    smooth: bool = False
    moments: bool = False
    keep_membrane: bool = False
    potential_norm: ChannelNorm | None = None
    feedback: Feedback | None = None


@dataclass(frozen=True)
class EngineOutput:
    """The output of one layer over all its steps.

    `spikes` [T, B, C, ...] in dtype and layout of the current, times their thresholds if the method scales them;
    `thresholds`, `widths` [T], [T, C] or, if the method is `per_neuron`, [T, C, *space], as used;
    `mean` and (biased) `variance` [T] of u over all elements of a step, with gradient, if `moments`;
    `membrane` [T, B, C, ...] without gradient, in the recursion's dtype, if `keep_membrane`;
    `fed_back`: the mean over all elements and steps of what the feedback adds to the currents, with gradient, if there
    is one.
    """

    spikes: Tensor
    thresholds: Tensor
    widths: Tensor
    mean: Tensor | None = None
    variance: Tensor | None = None
    membrane: Tensor | None = None
    fed_back: Tensor | None = None


class Engine(Protocol):
    """The signature of an engine."""

    def __call__(
        self,
        x: Tensor,
        neuron: Neuron,
        method: Method,
        facts: LayerFacts,
        options: EngineOptions,
        norm: ChannelNorm | None = None,
    ) -> EngineOutput:
        """Run one layer over all its time steps.

        Args:
            x: input of the norm, or the current itself without one, [T, B, C, *space] of any floating dtype;
                [1, B, C, *space] if it is the same at every step. Strides are kept, and x is never copied as a whole.
            neuron: with its values and dynamics.
            method: its `plan` is called before the first step or, if `method.measures(facts)`, its `adapt` before each
                step fires.
            facts: what the method may know about the layer.
            options: see EngineOptions.
            norm: in training mode it normalises over all of x, and updates its running statistics if `facts.updates`.
                One that is not `fusible` is called as a module before the first step; see `normalised`.

        Gradients flow to x, the neuron's values, the norm's parameters, and to thresholds and widths that require them.
        """
        ...


def normalised(x: Tensor, norm: ChannelNorm, facts: LayerFacts) -> Tensor:
    """The current [T, B, C, ...] of a layer's input by plain torch; [1, B, C, ...] if it is the same at every step.

    x: [T, B, C, ...], or [1, B, C, ...] if it is the same at every step.
    """
    # Not flatten: it gives the batch axis of a single sample a stride that batch norm's backward pass misreads.
    folded = x.squeeze(0) if len(x) == 1 else x.flatten(0, 1)
    current = norm(folded, repeats=facts.time_steps // len(x), update=facts.updates)
    return torch.unflatten(current, 0, (facts.time_steps if norm.per_step else len(x), x.shape[1]))


def has_standard_formulas(neuron: Neuron, method: Method, facts: LayerFacts) -> bool:
    """Whether the hand-written formulas of the standard neuron describe this layer."""
    return neuron.is_standard and not (method.scales_spikes or method.per_neuron or method.draws_noise(facts))


def layer_rules(neuron: Neuron, method: Method, options: EngineOptions) -> Rules:
    """The constants of a layer's recursion."""
    return Rules(type(neuron), neuron.config, options.surrogate, options.smooth, method.scales_spikes)


def planned(neuron: Neuron, method: Method, facts: LayerFacts) -> tuple[Tensor | None, Tensor | None]:
    """Thresholds and widths of all steps in the recursion's dtype, each [T] or [T, C]; None if `adapt` sets them.

    Contiguous, because other strides would compile every kernel again.
    """
    own = neuron.thresholds(facts.time_steps, facts.dtype)
    if method.measures(facts):
        return own, None
    plan = method.planned(facts)
    if plan.constant:
        return plan.thresholds if own is None else own, plan.widths
    thresholds = plan.thresholds.to(facts.dtype) if own is None else own
    return thresholds.contiguous(), plan.widths.to(facts.dtype).contiguous()


def neuron_values(neuron: Neuron, dtype: torch.dtype) -> list[Tensor]:
    """The neuron's values, in the order of its `axes`."""
    values = neuron.values()
    return [values[name].to(dtype).contiguous() for name in neuron.axes]


def follows_end(neuron: Neuron, facts: LayerFacts) -> bool:
    """Whether `follow_end` is due after this pass."""
    return neuron.follows_end and facts.training and facts.updates


def follow_end(neuron: Neuron, total: Tensor, count: Tensor) -> None:
    """Tell the neuron of the end of a pass (see `steps.end_of_fired`), over all ranks."""
    if ranks.world_size() > 1:
        total, count = ranks.summed(total, count)
    neuron.follow(total, count)


def new_noise(method: Method, facts: LayerFacts) -> Noise | None:
    """What draws the masks of this pass; None if the method has none."""
    if not method.draws_noise(facts):
        return None
    share = method.analog_share
    assert share is not None
    return Noise(new_seed(facts.device), share.to(facts.dtype))


def recursion_dtype(dtype: torch.dtype) -> torch.dtype:
    """float64 for float64, float32 for all shorter dtypes, because the recursion accumulates over time."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def empty_steps(x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Uninitialised [T, ...] with dense steps laid out as x[0], also if x is one step expanded T times (stride 0)."""
    step = torch.empty_like(x[0], dtype=dtype)
    return step.new_empty_strided(x.shape, (step.numel(), *step.stride()))


def over_channels(value: Tensor, step: Tensor) -> Tensor:
    """A scalar, [C] or [C, *space] tensor, shaped so that it broadcasts against `step` [B, C, *space]."""
    if value.ndim > 1:
        return value.unsqueeze(0)
    return value if value.ndim == 0 else value.view(1, -1, *[1] * (step.ndim - 2))


def membrane_statistics(u: Tensor, across_ranks: bool = False) -> tuple[Tensor, Tensor]:
    """Mean and unbiased std of all elements of u, as scalars; the std of a single element is 0.

    Two passes, because a sum of squares in float32 loses a small standard deviation next to a large mean.
    """
    mean = u.mean()
    return unbiased(mean, (u - mean).square().sum(), u.numel(), across_ranks)


def unbiased(mean: Tensor, squares: Tensor, count: int, across_ranks: bool = False) -> tuple[Tensor, Tensor]:
    """Mean and unbiased std from the mean and the sum of squared deviations of `count` elements.

    `across_ranks` includes the elements of all ranks that train together.
    """
    if across_ranks and ranks.world_size() > 1:
        return pooled_statistics(ranks.gathered(torch.stack([torch.full_like(mean, float(count)), mean, squares])))
    return mean, (squares / max(count - 1, 1)).sqrt()


def pooled_statistics(parts: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and unbiased std of a union of parts: rows of (count, mean, sum of squared deviations), [R, 3].

    Chan, Golub and LeVeque, 1979.
    """
    counts, means, squares = parts.unbind(1)
    total = counts.sum()
    mean = (counts * means).sum() / total
    deviations = squares.sum() + (counts * (means - mean).square()).sum()
    return mean, (deviations / (total - 1).clamp_min(1)).sqrt()
