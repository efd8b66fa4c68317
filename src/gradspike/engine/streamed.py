"""One time step of a layer at a time, with the state in the caller's hands, for input that arrives step by step.

The numbers are those of the reference engine in evaluation. A pass is started by `streaming`; inside it, spiking layers
call `StreamPass.advance` in place of their engine, and backbones see a single step.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gradspike.engine import steps
from gradspike.engine.base import (
    EngineOptions,
    layer_rules,
    membrane_statistics,
    neuron_values,
    over_channels,
    planned,
    recursion_dtype,
)
from gradspike.errors import ConfigError
from gradspike.methods.base import LayerFacts, Method
from gradspike.neurons.base import Neuron, State
from gradspike.norms.base import ChannelNorm

EMITTED = ".emitted"
"""Behind a layer's name: what it emitted, if it feeds that back."""


@dataclass
class StreamPass:
    """One forward pass over one step.

    Attributes:
        t: number of the step, from 0.
        before: states after step t - 1, by layer; empty for t = 0. A layer that is called again in the same pass has
            its number behind its name, as in "block.neuron#2".
        copies: how often the batch holds each sample, which counts once in statistics.
        after: states after this step.
    """

    t: int
    before: Mapping[str, State]
    copies: int = 1
    after: dict[str, State] = field(default_factory=dict)

    def advance(
        self,
        name: str,
        y: Tensor,
        neuron: Neuron,
        method: Method,
        facts: LayerFacts,
        options: EngineOptions,
        norm: ChannelNorm | None,
    ) -> Tensor:
        """What the layer `name` emits for its input y [B, C, *space] of this step; see `gradspike.engine.base.Engine`.

        Raises ConfigError if the layer has no such step, ValueError if the state is of another input or network.
        """
        dtype = recursion_dtype(y.dtype)
        thresholds, widths = planned(neuron, method, facts)
        if self.t >= facts.time_steps and (what := _limited(neuron, method, facts, norm, thresholds)):
            raise ConfigError(
                f"layer '{name}': {what} for each of its {facts.time_steps} time steps, so there is no step "
                f"{self.t + 1}. Start again without a state."
            )
        t = min(self.t, facts.time_steps - 1)
        x = (y if norm is None else norm.at_step(y, t)).to(dtype)
        rules = layer_rules(neuron, method, options)
        spread = functools.partial(over_channels, step=x)
        values = steps.pick(neuron_values(neuron, dtype), t, rules)
        if options.feedback is not None and (emitted_before := self.recall(f"{name}{EMITTED}", x)):
            x = x + options.feedback(*emitted_before).to(dtype)
        state = self.recall(name, x) or steps.start(x, values, rules, spread)
        charged = steps.charge(x, state, values, rules, spread)
        u = charged if options.potential_norm is None else options.potential_norm(charged, update=False)
        if thresholds is None or widths is None:
            theta, kappa = method.adapted(t, facts, *membrane_statistics(u[: len(u) // self.copies]))
            theta = theta.to(dtype) if thresholds is None else thresholds[t]
            kappa = kappa.to(dtype)
        else:
            theta, kappa = thresholds[t], widths[t]
        emitted, after = steps.fire(u, state, values, theta, kappa, rules, spread, gradient=False, charged=charged)
        if options.feedback is not None:
            self.keep(f"{name}{EMITTED}", (emitted,))
        self.keep(name, after)
        return emitted.to(y.dtype)

    def recall(self, name: str, x: Tensor) -> State | None:
        """The state of `name` after the last step, each tensor of the shape of x; None at the first step.

        Raises ValueError if the state is of another input or network.
        """
        if not self.t:
            return None
        key = self._key(name)
        if key not in self.before:
            raise ValueError(f"The state has no layer '{key}': it is the state of another network.")
        state = self.before[key]
        if wrong := [list(value.shape) for value in state if value.shape != x.shape]:
            raise ValueError(f"layer '{key}': its state has shape {wrong[0]}, but this step has {list(x.shape)}.")
        return state

    def keep(self, name: str, state: State) -> None:
        """Record the state of `name` after this step."""
        self.after[self._key(name)] = state

    def _key(self, name: str) -> str:
        key, calls = name, 1
        while key in self.after:
            calls += 1
            key = f"{name}#{calls}"
        return key


def check_streamable(name: str, neuron: Neuron) -> None:
    """Raise ConfigError if the neuron of layer `name` needs the currents of all steps at once."""
    if neuron.charges_at_once:
        raise ConfigError(
            f"layer '{name}': neuron '{neuron.config.name}' computes all time steps at once, so it cannot be streamed."
        )


def _limited(
    neuron: Neuron, method: Method, facts: LayerFacts, norm: ChannelNorm | None, thresholds: Tensor | None
) -> str:
    """What of a layer is given for each of its T steps alone; "" if every step is like the last."""
    if norm is not None and norm.per_step:
        return "the norm has values"
    if any(axes in ("T", "TC") for axes in neuron.axes.values()):
        return f"neuron '{neuron.config.name}' has values"
    if thresholds is None or not torch.equal(thresholds, thresholds[:1].expand_as(thresholds)):
        return f"method '{method.config.name}' sets thresholds"
    return ""


_pass: ContextVar[StreamPass | None] = ContextVar("gradspike_stream_pass", default=None)


def current_pass() -> StreamPass | None:
    """The pass over one step that is under way; None in a pass over all steps."""
    return _pass.get()


@contextmanager
def streaming(step: StreamPass) -> Iterator[StreamPass]:
    """Let the forward pass inside the block compute this one step."""
    token = _pass.set(step)
    try:
        yield step
    finally:
        _pass.reset(token)
