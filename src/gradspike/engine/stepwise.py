"""The reference for any neuron: `steps` under autograd, one step after the other."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from gradspike.engine import steps
from gradspike.engine.base import (
    EngineOptions,
    EngineOutput,
    follow_end,
    follows_end,
    layer_rules,
    membrane_statistics,
    neuron_values,
    new_noise,
    over_channels,
    planned,
    recursion_dtype,
)
from gradspike.methods.base import LayerFacts, Method
from gradspike.neurons.base import Neuron


def run(x: Tensor, neuron: Neuron, method: Method, facts: LayerFacts, options: EngineOptions) -> EngineOutput:
    """The output for the currents x [T, B, C, *space]; see `gradspike.engine.base.Engine`."""
    dtype = recursion_dtype(x.dtype)
    plan, widths = planned(neuron, method, facts)
    used: list[tuple[Tensor, Tensor]] = []

    def decide(t: int, u: Tensor) -> tuple[Tensor, Tensor]:
        if plan is not None and widths is not None:
            used.append((plan[t], widths[t]))
            return used[-1]
        with torch.no_grad():
            mean, std = membrane_statistics(u, across_ranks=method.sync_stats and facts.training)
            theta, kappa = (value.to(dtype) for value in method.adapted(t, facts, mean, std))
        used.append((theta if plan is None else plan[t], kappa))
        return used[-1]

    fed: list[Tensor] = []

    def feed(emitted: Tensor) -> Tensor:
        assert options.feedback is not None
        current: Tensor = options.feedback(emitted)
        fed.append(current.mean(dtype=dtype))
        return current

    norm, noise = options.potential_norm, new_noise(method, facts)
    emitted, membrane, state = steps.walk(
        [step.to(dtype) for step in x.unbind(0)],
        steps.Driven(neuron_values(neuron, dtype), noise=noise, places=None if noise is None else _places(x[0])),
        layer_rules(neuron, method, options),
        functools.partial(over_channels, step=x[0]),
        gradient=facts.gradients,
        normalise=None if norm is None else functools.partial(norm, update=facts.updates),
        decide=decide,
        feedback=None if options.feedback is None else feed,
    )
    if follows_end(neuron, facts):
        with torch.no_grad():
            follow_end(neuron, *steps.end_of_fired(emitted, state))
    mean_steps = variance_steps = None
    if options.moments:
        mean_steps = torch.stack([u.mean() for u in membrane])
        variance_steps = torch.stack([u.var(correction=0) for u in membrane])
    thresholds, kappas = (torch.stack(values) for values in zip(*used, strict=True))
    return EngineOutput(
        spikes=torch.stack([s.to(x.dtype) for s in emitted]),
        thresholds=thresholds,
        widths=kappas,
        mean=mean_steps,
        variance=variance_steps,
        membrane=torch.stack(membrane).detach() if options.keep_membrane else None,
        fed_back=torch.stack(fed).sum() / len(x) if fed else None,
    )


def _places(step: Tensor) -> Tensor:
    """Numbers of the elements of a step [B, C, *space], in the order [B, *space, C]."""
    last = step.movedim(1, -1)
    return torch.arange(step.numel(), device=step.device).view(last.shape).movedim(-1, 1)
