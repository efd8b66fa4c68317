"""Norm and neuron of a layer as one autograd function. Of the large tensors it keeps only the layer's input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from gradspike import ranks
from gradspike.engine.arrangement import arranged, restored
from gradspike.engine.base import follow_end, recursion_dtype, unbiased
from gradspike.engine.chunks import PartKernels, StepKernels, statistics_gradient
from gradspike.engine.formulas import first_potentials
from gradspike.engine.norm_formulas import inverse_std
from gradspike.engine.records import Affine, Arriving, Fired, Gradients, Inputs, Spec, Step, Wanted
from gradspike.engine.steps import Noise, pick
from gradspike.methods.base import LayerFacts, Method
from gradspike.neurons.base import Neuron, State
from gradspike.norms.base import ChannelNorm
from gradspike.norms.synced import norm_gradient


class LayerKernels(StepKernels, Protocol):
    """Those that compute a layer."""

    @property
    def forward(self) -> Callable[[Inputs, Tensor | None, Spec], Fired]:
        """All steps at once."""

    @property
    def backward(self) -> Callable[[Inputs, Arriving, Spec, Wanted], Gradients]:
        """The gradients of all inputs."""


class Kernels(LayerKernels, PartKernels, Protocol):
    """A module or an object with the functions of `formulas`, documented there."""


@dataclass(frozen=True)
class LayerCall:
    """The arguments of one call that have no gradient."""

    kernels: LayerKernels
    spec: Spec
    neuron: Neuron
    method: Method
    facts: LayerFacts
    norm: ChannelNorm | None
    noise: Noise | None
    moments: bool

    @property
    def synced(self) -> bool:
        """Whether the norm's statistics are those of all ranks."""
        return self.norm is not None and self.norm.synced

    def statistics(self, y: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Mean and biased variance [C] of the norm's input."""
        own = self.kernels.batch_statistics(y, dtype, self.spec)
        return ranks.pooled_channels(*own) if self.synced else own

    def affine(self, gain: Tensor | None, bias: Tensor | None, dtype: torch.dtype) -> Affine:
        """The norm's parameters, and its running statistics if it uses them."""
        if self.norm is None or self.spec.norm == "batch":
            return Affine(gain, bias)
        variance = self.norm.running_var.to(dtype)
        # A copy of the mean, because the norm may see another batch before the backward pass reads it.
        return Affine(gain, bias, self.norm.running_mean.to(dtype, copy=True), inverse_std(variance, self.spec))

    def normalised(self, affine: Affine, mean: Tensor, variance: Tensor, x: Tensor) -> Affine:
        """`affine` with this batch's statistics, which also update the norm's running ones."""
        if self.norm is not None and self.facts.updates:
            copies = self.spec.time_steps // x.shape[0] * (ranks.world_size() if self.synced else 1)
            self.norm.record(mean, variance, x.numel() // x.shape[2] * copies)
        return affine._replace(mean=mean, inverse=inverse_std(variance, self.spec))


class FusedLayer(torch.autograd.Function):
    """The layer as one node of autograd: its forward pass, and a backward pass that computes the potentials again."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        gain: Tensor | None,
        bias: Tensor | None,
        thresholds: Tensor | None,
        widths: Tensor | None,
        call: LayerCall,
        *values: Tensor,
    ) -> tuple[Tensor | None, ...]:
        """Spikes [T, B, C, *space], the thresholds and widths used if the method sets them from the potential, and the
        moments of u if `call.moments`.

        x: [T, B, C, *space], or [1, ...] for the same input at all steps. gain, bias: of the norm [C]. thresholds and
        widths: of all steps, or None if the method sets them from the potential. values: of the neuron.
        """
        spec, kernels = call.spec, call.kernels
        x, values = x.detach(), tuple(value.detach() for value in values)
        dtype = recursion_dtype(x.dtype)
        gain, bias, thresholds, widths = (
            None if value is None else value.detach() for value in (gain, bias, thresholds, widths)
        )
        y = arranged(x, spec.arrangement)
        affine = call.affine(gain, bias, dtype)
        if spec.norm == "batch" and (thresholds is None or call.moments or call.synced):
            affine = call.normalised(affine, *call.statistics(y, dtype), x)
        if thresholds is None or widths is None:
            fired, inputs = _adapted(y, affine, values, thresholds, call)
        else:
            inputs = Inputs(y, affine, thresholds, widths, values, call.noise)
            shifts = first_potentials(inputs, spec) if call.moments else None
            fired = kernels.forward(inputs, shifts, spec)
            if fired.batch_mean is not None and fired.batch_variance is not None:
                affine = call.normalised(affine, fired.batch_mean, fired.batch_variance, x)
            if fired.end is not None:
                follow_end(call.neuron, *fired.end)
        if call.facts.gradients:
            ctx.call, ctx.synced = call, call.synced
            ctx.set_materialize_grads(False)
            inputs = inputs._replace(y=x, affine=affine, states=fired.states)
            ctx.values, ctx.chunks = len(values), len(fired.states)
            ctx.save_for_backward(fired.u_mean, *inputs.flat())
        used: list[Tensor | None] = [None, None]
        if thresholds is None or widths is None:
            used = [inputs.thresholds, inputs.widths]
            ctx.mark_non_differentiable(*used)
        outputs = [restored(fired.spikes, x, spec.arrangement), *used]
        if fired.u_mean is not None and fired.u_variance is not None:
            outputs += [fired.u_mean, fired.u_variance]
        return tuple(outputs)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(
        ctx: Any, grad_spikes: Tensor | None, _thresholds: None, _widths: None, *moments: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        """The gradients of `forward`'s arguments, in their order."""
        call: LayerCall = ctx.call
        spec = call.spec
        u_mean, *flat = ctx.saved_tensors
        inputs = Inputs.of(flat, ctx.values, ctx.chunks)
        x = inputs.y
        if grad_spikes is None:
            grad_spikes = x.new_zeros(()).expand(spec.time_steps, *x.shape[1:])
        if ctx.synced:
            # The kernels treat the statistics as constants. Their gradient needs the sums of all ranks.
            spec = replace(spec, norm="given")
        inputs = inputs._replace(y=arranged(x, spec.arrangement))
        grad_mean, grad_variance = moments or (None, None)
        # An output of this layer, so it requires grad; torch would compile the kernel a second time for that.
        u_mean = None if u_mean is None else u_mean.detach()
        arriving = Arriving(arranged(grad_spikes, spec.arrangement), grad_mean, grad_variance, u_mean)
        _, needs_gain, needs_bias, needs_thresholds, needs_widths, _, *needs_values = ctx.needs_input_grad
        wanted = Wanted(needs_gain or needs_bias or ctx.synced, needs_thresholds, needs_widths, tuple(needs_values))
        gradients = call.kernels.backward(inputs, arriving, spec, wanted)
        if ctx.synced:
            gradients = _through_statistics(gradients, inputs, spec)
        return (
            None if gradients.y is None else restored(gradients.y, x, spec.arrangement),
            gradients.gain if needs_gain else None,
            gradients.bias if needs_bias else None,
            gradients.thresholds,
            gradients.widths,
            None,
            *gradients.values,
        )


def _through_statistics(gradients: Gradients, inputs: Inputs, spec: Spec) -> Gradients:
    """`gradients`, with the gradient of y through statistics over all ranks added."""
    assert gradients.y is not None
    assert gradients.gain is not None
    assert gradients.bias is not None
    gain, bias = ranks.summed(gradients.gain, gradients.bias)
    count = spec.count(inputs.y) * ranks.world_size()
    terms = statistics_gradient(gradients._replace(gain=gain, bias=bias), inputs.affine, count)
    slope, offset = (spec.spread(term) for term in terms)
    return gradients._replace(y=norm_gradient(gradients.y, inputs.y, slope, offset))


def _adapted(
    y: Tensor, affine: Affine, values: tuple[Tensor, ...], own: Tensor | None, call: LayerCall
) -> tuple[Fired, Inputs]:
    """All steps, if the method sets each threshold from the potential; also the inputs with these thresholds.

    Each step is one pass over the values, which fires the previous step, then charges and measures this one. `own` are
    the thresholds of a neuron that sets them itself.
    """
    spec, method, facts, kernels = call.spec, call.method, call.facts, call.kernels
    across_ranks = method.sync_stats and facts.training
    spikes = y.new_empty(spec.time_steps, *y.shape[1:])
    used: list[tuple[Tensor, Tensor]] = []
    moments: list[tuple[Tensor, Tensor]] = []
    states: list[State] = []
    begins = {sum(spec.chunks[:chunk]) for chunk in range(1, len(spec.chunks))}
    step: Step | None = None
    for t in range(spec.time_steps):
        now = values if spec.rules is None else pick(values, t, spec.rules)
        u, mean, squares, state = kernels.advance(y if y.shape[0] == 1 else y[t : t + 1], step, affine, now, spec)
        if t in begins:
            states.append(state)
        mean_std = unbiased(mean, squares, u.numel(), across_ranks)
        threshold, width = (value.to(u.dtype) for value in method.adapted(t, facts, *mean_std))
        if own is not None:
            threshold = own[t]
        step = Step(u, threshold, width, spikes[t], state, () if spec.rules is None else now)
        used.append((threshold, width))
        moments.append((mean, squares / u.numel()))
    assert step is not None
    kernels.finish(step, spec)
    thresholds, widths = (torch.stack(values) for values in zip(*used, strict=True))
    fired = Fired(spikes, None, None, None, None, states=tuple(states))
    if call.moments:
        u_mean, u_variance = (torch.stack(values) for values in zip(*moments, strict=True))
        fired = fired._replace(u_mean=u_mean, u_variance=u_variance)
    return fired, Inputs(y, affine, thresholds, widths, values)
