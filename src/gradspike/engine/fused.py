"""Norm and neuron of a layer in one autograd function. Of the large tensors it keeps only the layer's input.

It runs on any set of kernels: the `formulas` themselves, or their `compiled` or `triton` versions.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from gradspike import ranks
from gradspike.engine import eager
from gradspike.engine.base import (
    EngineOptions,
    EngineOutput,
    follow_end,
    follows_end,
    has_standard_formulas,
    layer_rules,
    neuron_values,
    new_noise,
    normalised,
    planned,
    recursion_dtype,
    unbiased,
)
from gradspike.engine.chunks import ChunkedKernels, PartKernels, StepKernels, even_chunks, statistics_gradient
from gradspike.engine.formulas import first_potentials
from gradspike.engine.norm_formulas import inverse_std
from gradspike.engine.records import Affine, Arriving, Fired, Gradients, Inputs, Spec, Step, Wanted
from gradspike.engine.steps import Noise, pick
from gradspike.methods.base import LayerFacts, Method
from gradspike.neurons.base import Neuron, State
from gradspike.norms.base import ChannelNorm
from gradspike.norms.synced import norm_gradient
from gradspike.private_names import found

log = logging.getLogger(__name__)

MOST_UNROLLED = 10
"""Time steps of one kernel, which unrolls them and compiles longer with each."""

MOST_AT_ONCE = 8
"""Time steps of a kernel of a neuron that charges all of them at once. Each of PSN's T^2 weights has a sum of its own
in the backward pass: compilation takes 20 s of processor time at T = 4, and 35 s at T = 8."""

PART = 16384
"""Maximum values of one step in a part, so that parts of several tensors fit in a core's cache together."""


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
class FusedEngine:
    """An engine (see `gradspike.engine.base.Engine`) built on kernels.

    The reference engine computes rare cases: returning or normalising the potential, normalising one value per channel,
    a width for each neuron, compiling the whole network, counting operations and, with a warning, a neuron that charges
    more than `most_at_once` steps at once.

    Attributes:
        kernels: see `Kernels`.
        most_steps: up to so many steps of the standard neuron go into one kernel.
        most_derived: up to so many steps of other neurons, whose backward pass is derived, and of the standard one that
            has more than `most_steps`. Even more run in `chunks`.
        most_at_once: of steps that a neuron charges at once.
    """

    kernels: Kernels
    most_steps: int = MOST_UNROLLED
    most_derived: int = MOST_UNROLLED
    most_at_once: int = MOST_AT_ONCE

    def __deepcopy__(self, memo: dict[int, Any]) -> FusedEngine:
        """Copied layers share the kernels, which have no state of a layer."""
        return self

    def __call__(
        self,
        x: Tensor,
        neuron: Neuron,
        method: Method,
        facts: LayerFacts,
        options: EngineOptions,
        norm: ChannelNorm | None = None,
    ) -> EngineOutput:
        """Run one layer; see `gradspike.engine.base.Engine`."""
        dtype = recursion_dtype(x.dtype)
        batch_norm = norm is not None and norm.training
        single = batch_norm and x.numel() == x.shape[2]
        measures = method.measures(facts)
        unsplit = measures and (neuron.charges_at_once or neuron.follows_end or method.draws_noise(facts))
        rare = options.keep_membrane or options.potential_norm is not None or single or unsplit or not x.numel()
        rare = rare or method.per_neuron
        if neuron.charges_at_once and facts.time_steps > self.most_at_once:
            _tell_of_many_steps(neuron.config.name, facts.time_steps, self.most_at_once)
            rare = True
        if options.potential_norm is not None and not options.keep_membrane:
            _tell_of_potential_norm()
        if rare or torch.compiler.is_compiling() or is_watched():
            return eager.run(x, neuron, method, facts, options, norm)
        if norm is not None and not norm.fusible:
            _tell_of_own_forward(type(norm).__name__)
            x, norm, batch_norm = normalised(x, norm, facts), None, False
        standard = has_standard_formulas(neuron, method, facts) and facts.time_steps <= self.most_steps
        split = not standard and not neuron.charges_at_once and facts.time_steps > self.most_derived
        spec = Spec(
            time_steps=facts.time_steps,
            arrangement=arrangement(x),
            norm="none" if norm is None else "batch" if batch_norm else "given",
            eps=0.0 if norm is None else norm.eps,
            surrogate=options.surrogate,
            detach_reset=neuron.config.detach_reset,
            smooth=options.smooth,
            rules=None if standard else layer_rules(neuron, method, options),
            follows_end=follows_end(neuron, facts),
            chunks=even_chunks(facts.time_steps) if split else (),
        )
        kernels: LayerKernels = ChunkedKernels(self.kernels) if split else self.kernels
        gain = bias = None
        if norm is not None:
            gain, bias = norm.gain.to(dtype), norm.bias.to(dtype)
        thresholds, widths = planned(neuron, method, facts)
        noise = new_noise(method, facts)
        call = _Call(kernels, spec, neuron, method, facts, norm, noise, options.moments)
        values = neuron_values(neuron, dtype)
        spikes, used_thresholds, used_widths, *moments = _Layer.apply(x, gain, bias, thresholds, widths, call, *values)
        mean, variance = moments if options.moments else (None, None)
        return EngineOutput(
            spikes=spikes,
            thresholds=used_thresholds if thresholds is None else thresholds,
            widths=used_widths if widths is None else widths,
            mean=mean,
            variance=variance,
        )


@dataclass(frozen=True)
class _Call:
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


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        gain: Tensor | None,
        bias: Tensor | None,
        thresholds: Tensor | None,
        widths: Tensor | None,
        call: _Call,
        *values: Tensor,
    ) -> tuple[Tensor, ...]:
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
        # Copies, because an autograd function must not return its inputs as outputs without gradient.
        used_thresholds, used_widths = inputs.thresholds.clone(), inputs.widths.clone()
        ctx.mark_non_differentiable(used_thresholds, used_widths)
        outputs = [restored(fired.spikes, x, spec.arrangement), used_thresholds, used_widths]
        if fired.u_mean is not None and fired.u_variance is not None:
            outputs += [fired.u_mean, fired.u_variance]
        return tuple(outputs)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(
        ctx: Any, grad_spikes: Tensor | None, _thresholds: None, _widths: None, *moments: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        call: _Call = ctx.call
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
    y: Tensor, affine: Affine, values: tuple[Tensor, ...], own: Tensor | None, call: _Call
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


@functools.cache
def _tell_of_many_steps(neuron: str, time_steps: int, most: int) -> None:
    log.warning(
        "T = %d: neuron '%s' charges all time steps at once, and with more than %d the kernels would compile for "
        "minutes. Layers run on the reference engine, as with engine=eager.",
        time_steps,
        neuron,
        most,
    )


@functools.cache
def _tell_of_potential_norm() -> None:
    log.warning("The norm of the potential has no kernels. Layers run on the reference engine, as with engine=eager.")


@functools.cache
def _tell_of_own_forward(norm: str) -> None:
    log.info("Norm %s runs as plain torch before the neuron, whose kernels are fused without it.", norm)


def is_watched() -> bool:
    """Whether a dispatch mode, such as a FLOP counter, sees every operation. Nothing compiles then."""
    return _modes() > 0


def _modes_in_python() -> int:
    from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

    return len(_get_current_dispatch_mode_stack())


_modes = found("torch._C._len_torch_dispatch_stack", _modes_in_python)
"""The number of active dispatch modes."""


def arrangement(x: Tensor) -> Literal["rows", "planes"]:
    """The arrangement that fits the memory of x [T, B, C, *space]; see `formulas`."""
    vectors = x.numel() == x.shape[0] * x.shape[1] * x.shape[2]
    return "rows" if vectors or x.movedim(2, -1).is_contiguous() else "planes"


def arranged(x: Tensor, how: Literal["rows", "planes"]) -> Tensor:
    """[T, B, C, *space] as [T, P, Q, C] or [T, P, C, S]: a view, or a copy if memory has the other layout."""
    steps, batch, channels = x.shape[:3]
    if how == "planes":
        return x.contiguous().view(steps, batch, channels, -1)
    x = x.movedim(2, -1).contiguous()
    if x.ndim > 3 and x.shape[-2] > 1 and x[0, 0].numel() > PART:
        return x.view(steps, -1, x.shape[-2], channels)
    return x.view(steps, batch, -1, channels) if x[0, 0].numel() > channels else x.view(steps, 1, batch, channels)


def restored(values: Tensor, like: Tensor, how: Literal["rows", "planes"]) -> Tensor:
    """The inverse of `arranged`: [T, B, C, *space] with B, C and space of `like`."""
    batch, channels, *space = like.shape[1:]
    if how == "planes":
        return values.view(-1, batch, channels, *space)
    return values.view(-1, batch, *space, channels).movedim(-1, 2)
