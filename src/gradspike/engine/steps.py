"""The loop over time steps of any neuron, from which engines derive the backward pass.

Plain differentiable operations on tensors of one step: the reference engine runs them under autograd, the fast ones
compile them with `torch.func.vjp` inside.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from gradspike.engine.noise import spike_mask
from gradspike.neurons.base import Neuron, State, is_mixture
from gradspike.neurons.options import NeuronConfig
from gradspike.surrogate import Surrogate

Spread = Callable[[Tensor], Tensor]
"""Shapes a scalar or [C] tensor to broadcast against one step."""


@dataclass(frozen=True)
class Rules:
    """Constants of a layer's recursion.

    Attributes:
        neuron: the class with the dynamics.
        options: of the neuron.
        surrogate: shape of the surrogate gradient.
        smooth: emit the surrogate's primitive in place of spikes; the backward pass is then the exact gradient.
        scaled: emit theta * s in place of s.
    """

    neuron: type[Neuron]
    options: NeuronConfig
    surrogate: Surrogate
    smooth: bool = False
    scaled: bool = False


class Noise(NamedTuple):
    """Elements that emit the surrogate's primitive: scalars seed (int64) and share; see `noise.spike_mask`."""

    seed: Tensor
    share: Tensor


class Driven(NamedTuple):
    """What drives the steps besides the currents.

    Attributes:
        values: of the neuron, in the order of its `axes`.
        thresholds, widths: one [] or [C] for each step, unless `walk` is told to `decide`.
        noise: see `Noise`; `places` numbers the elements of a step for it.
    """

    values: Sequence[Tensor]
    thresholds: Sequence[Tensor] = ()
    widths: Sequence[Tensor] = ()
    noise: Noise | None = None
    places: Tensor | None = None


class Walked(NamedTuple):
    """What all steps give: emitted values and potentials, each T tensors, and the last state."""

    emitted: list[Tensor]
    potentials: list[Tensor]
    state: State


def tangent(rules: Rules) -> Rules:
    """Rules whose gradient through the spikes is the surrogate's derivative, computed as such.

    torch differentiates the primitive to the same values with more arithmetic, such as two divisions for each element.
    Unchanged where the primitive itself counts, or a neuron's own `fire` may use it. The width gets no gradient.
    """
    if rules.smooth or rules.neuron.fire is not Neuron.fire:
        return rules
    derivative = rules.surrogate.derivative

    def primitive(v: Tensor, kappa: Tensor) -> Tensor:
        # Of value 0, because only the gradient counts: v minus itself.
        return derivative(v.detach(), kappa.detach()) * (v - v.detach())

    return replace(rules, surrogate=replace(rules.surrogate, primitive=primitive))


def walk(
    currents: Sequence[Tensor],
    driven: Driven,
    rules: Rules,
    spread: Spread,
    *,
    gradient: bool,
    normalise: Callable[[Tensor], Tensor] | None = None,
    decide: Callable[[int, Tensor], tuple[Tensor, Tensor]] | None = None,
    state: State | None = None,
    feedback: Callable[[Tensor], Tensor] | None = None,
) -> Walked:
    """All steps.

    Args:
        currents: one for each step.
        driven: see `Driven`.
        rules: see `Rules`.
        spread: see `Spread`.
        gradient: a backward pass follows, in which the surrogate replaces the step function.
        normalise: gives the potential that meets the threshold; the reset acts on the charged one.
        decide: threshold and width of a step from its number and potential, in place of those of `driven`.
        state: before the first of these steps, if they continue others.
        feedback: what a step's current gains from the values that the step before emitted; nothing at the first step.
            Not for a neuron that `charges_at_once`.
    """
    emitted: list[Tensor] = []
    potentials: list[Tensor] = []
    ahead = charge_all(currents, driven.values, rules, spread) if rules.neuron.charges_at_once else None
    if state is None:
        state = start(currents[0], pick(driven.values, 0, rules), rules, spread)
    for t, x in enumerate(currents):
        if feedback is not None and emitted:
            x = x + feedback(before(emitted[-1], rules)).to(x.dtype)
        values = pick(driven.values, t, rules)
        charged = charge(x, state, values, rules, spread) if ahead is None else ahead[t]
        u = charged if normalise is None else normalise(charged)
        mask = None
        if driven.noise is not None and driven.places is not None:
            mask = spike_mask(driven.noise.seed, driven.noise.share, t, driven.places)
        theta, kappa = (driven.thresholds[t], driven.widths[t]) if decide is None else decide(t, u)
        s, state = fire(u, state, values, theta, kappa, rules, spread, gradient=gradient, mask=mask, charged=charged)
        emitted.append(s)
        potentials.append(u)
    return Walked(emitted, potentials, state)


def pick(values: Sequence[Tensor], t: int, rules: Rules) -> tuple[Tensor, ...]:
    """The neuron's values at step t."""
    axes = rules.neuron.axes.values()
    return tuple(value[t] if of in ("T", "TC") else value for of, value in zip(axes, values, strict=True))


def start(x: Tensor, values: Sequence[Tensor], rules: Rules, spread: Spread) -> State:
    """The state before the first step."""
    return rules.neuron.start(x, _named(values, rules, spread), rules.options)


def charge_all(currents: Sequence[Tensor], values: Sequence[Tensor], rules: Rules, spread: Spread) -> list[Tensor]:
    """The potentials of all steps, if the neuron `charges_at_once`. Values that differ between steps are whole."""
    named = _named(values, rules, spread, ("", "C"))
    if not is_mixture(rules.neuron):
        return rules.neuron.charge_all(currents, named, rules.options)
    mixture = rules.neuron.mixture(named, rules.options, len(currents))
    assert mixture is not None
    potentials = []
    for row, bias, counts in zip(mixture.weights.unbind(0), mixture.biases.unbind(0), mixture.counts, strict=True):
        terms = [w * x for w, x, counted in zip(row.unbind(0), currents, counts, strict=True) if counted]
        potentials.append(sum(terms[1:], terms[0]) + bias)
    return potentials


def before(value: Tensor, rules: Rules) -> Tensor:
    """A value of the step before, without gradient if the neuron's gradient does not go through time (SLTT)."""
    return value.detach() if rules.options.gradient == "sltt" else value


def charge(x: Tensor, state: State, values: Sequence[Tensor], rules: Rules, spread: Spread) -> Tensor:
    """The potential of a step, from the values of that step."""
    state = tuple(before(value, rules) for value in state)
    return rules.neuron.charge(x, state, _named(values, rules, spread), rules.options)


def fire(
    u: Tensor,
    state: State,
    values: Sequence[Tensor],
    threshold: Tensor,
    width: Tensor,
    rules: Rules,
    spread: Spread,
    *,
    gradient: bool,
    mask: Tensor | None = None,
    charged: Tensor | None = None,
) -> tuple[Tensor, State]:
    """What a step emits, and the state after it. Where `mask` is false, it emits the surrogate's primitive.

    charged: the potential that the reset acts on; u unless a norm lies between.
    """
    p = _named(values, rules, spread)
    theta, kappa = spread(threshold), spread(width)
    hard, soft = rules.neuron.fire(u, theta, kappa, rules.surrogate, p, rules.options)
    s = hard if mask is None else torch.where(mask, hard, soft)
    if rules.smooth:
        s = soft
    elif gradient:
        # Exactly the value of s, with the gradient of the smooth function.
        s = s.detach() + (soft - soft.detach())
    kept = s.detach() if rules.options.detach_reset else s
    state = rules.neuron.reset(u if charged is None else charged, kept, theta, state, p, rules.options)
    return s * theta if rules.scaled else s, state


def end_of_fired(emitted: Sequence[Tensor], state: State) -> tuple[Tensor, Tensor]:
    """Sum of the last state's first tensor over the elements that fired at least once, and their number."""
    fired = emitted[0] != 0
    for s in emitted[1:]:
        fired = fired | (s != 0)
    last = state[0]
    return (last * fired).sum(), fired.sum().to(last.dtype)


def _named(
    values: Sequence[Tensor], rules: Rules, spread: Spread, spreadable: tuple[str, ...] = ("", "C", "T", "TC")
) -> dict[str, Tensor]:
    return {
        name: spread(value) if axes in spreadable else value
        for (name, axes), value in zip(rules.neuron.axes.items(), values, strict=True)
    }
