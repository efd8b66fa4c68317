"""The reference engine: step by step. The standard neuron has a backward pass written by hand, in one autograd function
over all time steps, which keeps u (in the recursion's dtype). For other neurons, `stepwise` leaves the backward pass to
autograd.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from gradspike.engine import stepwise
from gradspike.engine.base import (
    EngineOptions,
    EngineOutput,
    empty_steps,
    has_standard_formulas,
    membrane_statistics,
    normalised,
    over_channels,
    planned,
    recursion_dtype,
)
from gradspike.methods.base import LayerFacts, Method
from gradspike.neurons.base import Neuron
from gradspike.neurons.recursion import charge, fire, membrane_adjoint, spike_adjoint
from gradspike.norms.base import ChannelNorm


def run(
    x: Tensor,
    neuron: Neuron,
    method: Method,
    facts: LayerFacts,
    options: EngineOptions,
    norm: ChannelNorm | None = None,
) -> EngineOutput:
    """See `gradspike.engine.base.Engine`."""
    dtype = recursion_dtype(x.dtype)
    if norm is not None:
        x = normalised(x, norm, facts)
    if len(x) < facts.time_steps:
        x = x.expand(facts.time_steps, *x.shape[1:])
    by_steps = options.potential_norm is not None or options.feedback is not None
    if by_steps or not has_standard_formulas(neuron, method, facts):
        return stepwise.run(x, neuron, method, facts, options)
    decay = neuron.decay
    assert decay is not None
    thresholds, widths = planned(neuron, method, facts)
    # A method that measures the potential writes to its buffers between steps, which torch.compile cannot trace.
    apply = _MultiStep.apply if thresholds is not None else _apply_uncompiled
    detach_reset = neuron.config.detach_reset
    spikes, used_thresholds, used_widths, *more = apply(
        x, decay.to(dtype), thresholds, widths, method, facts, options, detach_reset
    )
    mean, variance = more[:2] if options.moments else (None, None)
    return EngineOutput(
        spikes=spikes,
        thresholds=used_thresholds if thresholds is None else thresholds,
        widths=used_widths if widths is None else widths,
        mean=mean,
        variance=variance,
        membrane=more[-1] if options.keep_membrane else None,
    )


class _MultiStep(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        decay: Tensor,
        thresholds: Tensor | None,
        widths: Tensor | None,
        method: Method,
        facts: LayerFacts,
        options: EngineOptions,
        detach_reset: bool,
    ) -> tuple[Tensor, ...]:
        spikes = empty_steps(x)
        membrane: list[Tensor] = []
        used: list[tuple[Tensor, Tensor]] = []
        moments: list[tuple[Tensor, Tensor]] = []
        u: Tensor | None = None
        for t in range(x.shape[0]):
            current = x[t].to(decay.dtype)
            u = current if u is None else charge(current, u, spikes[t - 1], decay)
            if thresholds is None or widths is None:
                mean, std = membrane_statistics(u, across_ranks=method.sync_stats and facts.training)
                theta, kappa = method.adapted(t, facts, mean, std)
                theta, kappa = theta.to(decay.dtype), kappa.to(decay.dtype)
            else:
                theta, kappa = thresholds[t], widths[t]
            spikes[t] = fire(u, over_channels(theta, u), over_channels(kappa, u), options.surrogate, options.smooth)
            if options.moments:
                average = u.mean()
                moments.append((average, (u - average).square().mean()))
            if facts.gradients or options.keep_membrane:
                membrane.append(u)
            used.append((theta, kappa))

        used_thresholds = torch.stack([theta for theta, _ in used])
        used_widths = torch.stack([kappa for _, kappa in used])
        mean_steps = torch.stack([m for m, _ in moments]) if options.moments else None
        variance_steps = torch.stack([v for _, v in moments]) if options.moments else None
        if facts.gradients:
            ctx.options, ctx.detach_reset = options, detach_reset
            ctx.shape, ctx.stride, ctx.dtype = spikes.shape, spikes.stride(), spikes.dtype
            ctx.set_materialize_grads(False)
            ctx.save_for_backward(decay, used_thresholds, used_widths, mean_steps, *membrane)
        # Tensors only: torch.compile refuses an autograd function that also returns None.
        outputs = [spikes, used_thresholds, used_widths]
        fixed = [used_thresholds, used_widths]
        if mean_steps is not None and variance_steps is not None:
            outputs += [mean_steps, variance_steps]
        if options.keep_membrane:
            outputs.append(torch.stack(membrane))
            fixed.append(outputs[-1])
        ctx.mark_non_differentiable(*fixed)
        return tuple(outputs)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(
        ctx: Any, grad_spikes: Tensor | None, _thresholds: None, _widths: None, *more: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        grad_mean, grad_variance = more[:2] if ctx.options.moments else (None, None)
        decay, thresholds, widths, mean, *membrane = ctx.saved_tensors
        surrogate, smooth, detach_reset = ctx.options.surrogate, ctx.options.smooth, ctx.detach_reset
        _, needs_decay, needs_thresholds, needs_widths, *_ = ctx.needs_input_grad
        grad_x = decay.new_empty_strided(ctx.shape, ctx.stride, dtype=ctx.dtype)
        grad_decay = torch.zeros_like(decay)
        grad_thresholds = torch.zeros_like(thresholds)
        grad_widths = torch.zeros_like(widths)

        def fired(t: int) -> Tensor:
            u = membrane[t]
            theta, kappa = over_channels(thresholds[t], u), over_channels(widths[t], u)
            return fire(u, theta, kappa, surrogate, smooth).to(u.dtype)

        grad_u: Tensor | None = None
        s = fired(len(membrane) - 1)
        for t in reversed(range(len(membrane))):
            u = membrane[t]
            theta, kappa = over_channels(thresholds[t], u), over_channels(widths[t], u)
            v = u - theta
            grad_s = torch.zeros_like(u) if grad_spikes is None else grad_spikes[t].to(u.dtype)
            h = surrogate.derivative(v, kappa)
            adjoint = spike_adjoint(grad_s, grad_u, u, decay, detach_reset)
            if needs_thresholds:
                grad_thresholds[t] = -(adjoint * h).sum_to_size(theta.shape).view_as(thresholds[t])
            if needs_widths:
                width_derivative = surrogate.width_derivative(v, kappa)
                grad_widths[t] = (adjoint * width_derivative).sum_to_size(kappa.shape).view_as(widths[t])
            grad_u = membrane_adjoint(adjoint, grad_u, h, s, decay)
            if grad_mean is not None:
                grad_u = grad_u + grad_mean[t] / u.numel()
            if grad_variance is not None:
                grad_u = grad_u + grad_variance[t] * (2 / u.numel()) * (u - mean[t])
            if t > 0:
                s = fired(t - 1)
                if needs_decay:
                    grad_decay += (grad_u * membrane[t - 1] * (1 - s)).sum()
            grad_x[t] = grad_u

        return (
            grad_x,
            grad_decay if needs_decay else None,
            grad_thresholds if needs_thresholds else None,
            grad_widths if needs_widths else None,
            None,
            None,
            None,
            None,
        )


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _apply_uncompiled(*args: Any) -> Any:
    return _MultiStep.apply(*args)
