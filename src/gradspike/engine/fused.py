"""Norm and neuron of a layer in one autograd function, which keeps the layer's input and nothing else of its size.

It works with any set of kernels: `formulas` as they are, or what `compiled` and `triton` make of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from gradspike import ranks
from gradspike.engine import eager
from gradspike.engine.base import EngineOptions, EngineOutput, recursion_dtype, unbiased
from gradspike.engine.formulas import Affine, Fired, Gradients, Spec, Wanted, first_potentials, inverse_std
from gradspike.methods.base import LayerFacts, Method
from gradspike.norms.synced import norm_gradient, statistics_terms
from gradspike.norms.tdbn import ChannelNorm

PART = 16384
"""Values of one step that a part may have: a part of several tensors fits in a core's cache."""


class Kernels(Protocol):
    """A module or an object with the functions of `formulas`."""

    @property
    def batch_statistics(self) -> Callable[..., tuple[Tensor, Tensor]]:
        """See `formulas`, as for the others."""

    @property
    def forward(self) -> Callable[..., Fired]:
        """All steps at once."""

    @property
    def advance(self) -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
        """One step."""

    @property
    def finish(self) -> Callable[..., None]:
        """The spikes of the last step."""

    @property
    def backward(self) -> Callable[..., Gradients]:
        """All steps, backwards."""


@dataclass(frozen=True)
class FusedEngine:
    """An engine (see `gradspike.engine.base.Engine`) made of kernels.

    The reference engine computes what is rare: a look at the potential itself, a norm of a single value a channel, a
    network that torch.compile takes as a whole, and a pass in which somebody counts operations.
    """

    kernels: Kernels

    def __deepcopy__(self, memo: dict[int, Any]) -> FusedEngine:
        """Itself: a copied layer shares the kernels, which belong to no layer."""
        return self

    def __call__(
        self,
        x: Tensor,
        decay: Tensor,
        method: Method,
        facts: LayerFacts,
        options: EngineOptions,
        norm: ChannelNorm | None = None,
    ) -> EngineOutput:
        """See `gradspike.engine.base.Engine`."""
        dtype = recursion_dtype(x.dtype)
        batch_norm = norm is not None and norm.training
        single = batch_norm and x.numel() == x.shape[2]
        rare = options.keep_membrane or single or not x.numel()
        if rare or torch.compiler.is_compiling() or is_watched():
            return eager.run(x, decay, method, facts, options, norm)
        spec = Spec(
            time_steps=facts.time_steps,
            arrangement=arrangement(x),
            norm="none" if norm is None else "batch" if batch_norm else "given",
            eps=0.0 if norm is None else norm.eps,
            surrogate=options.surrogate,
            detach_reset=options.detach_reset,
            smooth=options.smooth,
        )
        gain = bias = None
        if norm is not None:
            gain, bias = norm.gain.to(dtype), norm.bias.to(dtype)
        thresholds = widths = None
        if not method.measures(facts):
            plan = method.planned(facts)
            thresholds, widths = plan.thresholds.to(dtype), plan.widths.to(dtype)
        call = _Call(self.kernels, spec, method, facts, norm, options.moments)
        spikes, used_thresholds, used_widths, *moments = _Layer.apply(
            x, gain, bias, decay.to(dtype), thresholds, widths, call
        )
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
    """What one call has beside tensors with gradient."""

    kernels: Kernels
    spec: Spec
    method: Method
    facts: LayerFacts
    norm: ChannelNorm | None
    moments: bool

    @property
    def synced(self) -> bool:
        """Whether the norm's statistics are those of all ranks."""
        return self.norm is not None and self.norm.synced

    def statistics(self, y: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Mean and biased variance [C] of what the norm sees."""
        own = self.kernels.batch_statistics(y, dtype, self.spec)
        return ranks.pooled_channels(*own) if self.synced else own

    def affine(self, gain: Tensor | None, bias: Tensor | None, dtype: torch.dtype) -> Affine:
        """What the norm works with before the batch is seen."""
        if self.norm is None or self.spec.norm == "batch":
            return Affine(gain, bias)
        variance = self.norm.running_var.to(dtype)
        # A copy of the mean: it is kept for the backward, before which the norm may see another batch.
        return Affine(gain, bias, self.norm.running_mean.to(dtype, copy=True), inverse_std(variance, self.spec))

    def normalised(self, affine: Affine, mean: Tensor, variance: Tensor, x: Tensor) -> Affine:
        """`affine` with this batch's statistics, which the norm's running ones follow."""
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
        decay: Tensor,
        thresholds: Tensor | None,
        widths: Tensor | None,
        call: _Call,
    ) -> tuple[Tensor, ...]:
        spec, kernels = call.spec, call.kernels
        x, decay = x.detach(), decay.detach()
        gain, bias, thresholds, widths = (
            None if value is None else value.detach() for value in (gain, bias, thresholds, widths)
        )
        y = arranged(x, spec.arrangement)
        affine = call.affine(gain, bias, decay.dtype)
        if spec.norm == "batch" and (thresholds is None or call.moments or call.synced):
            affine = call.normalised(affine, *call.statistics(y, decay.dtype), x)
        if thresholds is None or widths is None:
            fired, thresholds, widths = _adapted(y, affine, decay, call)
        else:
            shifts = first_potentials(y, affine, decay, thresholds, widths, spec) if call.moments else None
            fired = kernels.forward(y, affine, decay, thresholds, widths, shifts, spec)
            if fired.batch_mean is not None and fired.batch_variance is not None:
                affine = call.normalised(affine, fired.batch_mean, fired.batch_variance, x)
        if call.facts.gradients:
            ctx.call, ctx.synced = call, call.synced
            ctx.set_materialize_grads(False)
            ctx.save_for_backward(x, *affine, decay, thresholds, widths, fired.u_mean)
        # What was planned comes back as it went in: as a copy, which an autograd function may give.
        used_thresholds, used_widths = thresholds.clone(), widths.clone()
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
        x, gain, bias, mean, inverse, decay, thresholds, widths, u_mean = ctx.saved_tensors
        _, needs_gain, needs_bias, needs_decay, needs_thresholds, needs_widths, _ = ctx.needs_input_grad
        grad_u_mean, grad_u_variance = moments if moments else (None, None)
        if grad_spikes is None:
            grad_spikes = x.new_zeros(()).expand(spec.time_steps, *x.shape[1:])
        if ctx.synced:
            # The kernels take the statistics for constants; what they pass back waits for the sums of all ranks.
            spec = replace(spec, norm="given")
        gradients = call.kernels.backward(
            arranged(grad_spikes, spec.arrangement),
            grad_u_mean,
            grad_u_variance,
            arranged(x, spec.arrangement),
            Affine(gain, bias, mean, inverse),
            decay,
            thresholds,
            widths,
            u_mean,
            spec,
            Wanted(needs_gain or needs_bias or ctx.synced, needs_decay, needs_thresholds, needs_widths),
        )
        if ctx.synced and gradients.gain is not None and gradients.bias is not None:
            y = arranged(x, spec.arrangement)
            count = spec.count(y) * ranks.world_size()
            terms = statistics_terms(gradients.gain, gradients.bias, gain, mean, inverse, count)
            slope, offset = (spec.spread(term) for term in terms)
            gradients = gradients._replace(y=norm_gradient(gradients.y, y, slope, offset))
        return (
            restored(gradients.y, x, spec.arrangement),
            gradients.gain if needs_gain else None,
            gradients.bias if needs_bias else None,
            gradients.decay,
            gradients.thresholds,
            gradients.widths,
            None,
        )


def _adapted(y: Tensor, affine: Affine, decay: Tensor, call: _Call) -> tuple[Fired, Tensor, Tensor]:
    """All steps where the method sees the potential; and the thresholds and widths that it set.

    One pass over the values a step: it fires the step before, charges and measures.
    """
    spec, method, facts, kernels = call.spec, call.method, call.facts, call.kernels
    across_ranks = method.sync_stats and facts.training
    spikes = y.new_empty(spec.time_steps, *y.shape[1:])
    used: list[tuple[Tensor, Tensor]] = []
    moments: list[tuple[Tensor, Tensor]] = []
    u = threshold = width = None
    for t in range(spec.time_steps):
        step = y if y.shape[0] == 1 else y[t : t + 1]
        before = spikes[t - 1] if t else None
        u, mean, squares = kernels.advance(step, u, threshold, width, before, affine, decay, spec)
        mean_std = unbiased(mean, squares, u.numel(), across_ranks)
        threshold, width = (value.to(decay.dtype) for value in method.adapted(t, facts, *mean_std))
        used.append((threshold, width))
        moments.append((mean, squares / u.numel()))
    kernels.finish(u, threshold, width, spikes[-1], spec)
    thresholds, widths = (torch.stack(values) for values in zip(*used, strict=True))
    fired = Fired(spikes, None, None, None, None)
    if call.moments:
        u_mean, u_variance = (torch.stack(values) for values in zip(*moments, strict=True))
        fired = fired._replace(u_mean=u_mean, u_variance=u_variance)
    return fired, thresholds, widths


def is_watched() -> bool:
    """Whether a dispatch mode (a counter of operations, fake tensors) sees every operation; nothing compiles then."""
    return bool(torch._C._len_torch_dispatch_stack())


def arrangement(x: Tensor) -> Literal["rows", "planes"]:
    """How [T, B, C, *space] lies in memory; see `formulas`."""
    vectors = x.numel() == x.shape[0] * x.shape[1] * x.shape[2]
    return "rows" if vectors or x.movedim(2, -1).is_contiguous() else "planes"


def arranged(x: Tensor, how: Literal["rows", "planes"]) -> Tensor:
    """[T, B, C, *space] as [T, P, Q, C] or [T, P, C, S]: a view, but of a tensor that lies in memory another way."""
    steps, batch, channels = x.shape[:3]
    if how == "planes":
        return x.contiguous().view(steps, batch, channels, -1)
    x = x.movedim(2, -1).contiguous()
    if x.ndim > 3 and x.shape[-2] > 1 and x[0, 0].numel() > PART:
        return x.view(steps, -1, x.shape[-2], channels)
    return x.view(steps, batch, -1, channels) if x[0, 0].numel() > channels else x.view(steps, 1, batch, channels)


def restored(values: Tensor, like: Tensor, how: Literal["rows", "planes"]) -> Tensor:
    """The inverse of `arranged`: [T, B, C, *space], with B, C and space of `like`."""
    batch, channels, *space = like.shape[1:]
    if how == "planes":
        return values.view(-1, batch, channels, *space)
    return values.view(-1, batch, *space, channels).movedim(-1, 2)
