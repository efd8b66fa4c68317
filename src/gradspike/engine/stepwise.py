"""The reference for any neuron: `steps` under autograd, one step after the other."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from gradspike import ranks
from gradspike.engine import steps
from gradspike.engine.base import (
    EngineOptions,
    EngineOutput,
    given_thresholds,
    layer_rules,
    membrane_statistics,
    new_noise,
    over_channels,
    planned,
    recursion_dtype,
)
from gradspike.engine.noise import spike_mask
from gradspike.methods.base import LayerFacts, Method
from gradspike.neurons.base import Neuron


def run(x: Tensor, neuron: Neuron, method: Method, facts: LayerFacts, options: EngineOptions) -> EngineOutput:
    """The output for the currents x [T, B, C, *space]; see `gradspike.engine.base.Engine`."""
    dtype = recursion_dtype(x.dtype)
    rules, norm = layer_rules(neuron, method, options), options.potential_norm
    spread = functools.partial(over_channels, step=x[0])
    values = [value.to(dtype) for value in neuron.values().values()]
    measures = method.measures(facts)
    if measures:
        plan, widths = given_thresholds(neuron, facts), None
    else:
        plan, widths = planned(neuron, method, facts)
    noise = new_noise(method, facts)
    places = None if noise is None else _places(x[0])

    currents = [step.to(dtype) for step in x.unbind(0)]
    ahead = steps.charge_all(currents, values, rules, spread) if neuron.charges_at_once else None
    state = steps.start(currents[0], steps.pick(values, 0, rules), rules, spread)
    emitted: list[Tensor] = []
    membrane: list[Tensor] = []
    used: list[tuple[Tensor, Tensor]] = []
    for t, current in enumerate(currents):
        now = steps.pick(values, t, rules)
        charged = steps.charge(current, state, now, rules, spread) if ahead is None else ahead[t]
        u = charged if norm is None else norm(charged, update=facts.updates)
        if plan is None or widths is None:
            with torch.no_grad():
                mean, std = membrane_statistics(u, across_ranks=method.sync_stats and facts.training)
                theta, kappa = (value.to(dtype) for value in method.adapted(t, facts, mean, std))
        if plan is not None:
            theta = plan[t]
        if widths is not None:
            kappa = widths[t]
        mask = None if noise is None or places is None else spike_mask(noise.seed, noise.share, t, places)
        given = (u, state, now, theta, kappa, rules, spread)
        s, state = steps.fire(*given, gradient=facts.gradients, mask=mask, charged=charged)
        emitted.append(s)
        membrane.append(u)
        used.append((theta, kappa))

    if neuron.follows_end and facts.training and facts.updates:
        with torch.no_grad():
            end = steps.end_of_fired(emitted, state)
            neuron.follow(*(ranks.summed(*end) if ranks.world_size() > 1 else end))
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
    )


def _places(step: Tensor) -> Tensor:
    """Numbers of the elements of a step [B, C, *space], in the order [B, *space, C]."""
    last = step.movedim(1, -1)
    return torch.arange(step.numel(), device=step.device).view(last.shape).movedim(-1, 1)
