"""The formulas as hand-written Triton kernels: for CUDA, and (slowly) for a CPU with TRITON_INTERPRET=1.

Forward: one pass over the layer's input computes the norm's statistics; another normalises, runs the recursion and
writes the spikes. Backward: one pass sums the terms for the norm, the decay and learned thresholds and widths; another
writes the gradient of the input. A norm with given statistics, or no norm, needs a single pass. Both backward passes
recompute u and dL/dx. Writing dL/dx in the first pass and reading it in the second would move more bytes (six instead
of five tensors of the input's size). In a dtype shorter than the recursion's it would also be rounded again, or need a
scratch tensor of four bytes per value.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import triton.language as tl
from torch import Tensor

from gradspike.engine.fused import FusedEngine
from gradspike.engine.fused_layer import Kernels
from gradspike.engine.norm_formulas import inverse_std
from gradspike.engine.records import Affine, Arriving, Fired, Gradients, Inputs, Part, Spec, Step, Wanted
from gradspike.engine.registry import triton_problem
from gradspike.engine.triton import kernels as triton_kernels
from gradspike.engine.triton import surrogates as triton_surrogates
from gradspike.engine.triton.tiling import Tiling, power_of_2
from gradspike.errors import UserError
from gradspike.neurons.base import State
from gradspike.surrogate import SURROGATES

MOST_STEPS = 32
"""Kernels unroll all steps and keep their potentials in registers. With 24 steps a kernel compiles in seconds; with 48
steps it takes 40 s and registers run out. Beyond this limit, layers run on compiled kernels."""


@dataclass(frozen=True)
class TritonKernels:
    """The functions of `formulas` as Triton kernels.

    Surrogates outside `SURROGATES` and neurons other than the standard one have none; compiled kernels are used for
    them.

    Attributes:
        tile: values of a full tile, a power of 2.
        programs: approximate maximum of programs that sum parts of the same quantity. The same on every device, and
            so is the order of summation.
    """

    tile: int = 1024
    programs: int = 1024

    def batch_statistics(self, y: Tensor, dtype: torch.dtype, spec: Spec) -> tuple[Tensor, Tensor]:
        """See `formulas.batch_statistics`."""
        tiling = Tiling.of(tuple(y.shape), spec, tile=self.tile, most_programs=self.programs)
        partials = y.new_empty(3, tiling.parts, tiling.channels, dtype=dtype)
        _launch(triton_kernels.channel_statistics, tiling, y, partials, *tiling.sizes, dtype=dtype, **tiling.constants)
        return _pooled(partials, divide=True)

    def forward(self, inputs: Inputs, shifts: Tensor | None, spec: Spec) -> Fired:
        """See `formulas.forward`. The values of `shifts` are not used: sums here are Welford's."""
        if not _has_kernels(spec):
            return _compiled().forward(inputs, shifts, spec)
        y, affine, thresholds, widths, (decay,), *_ = inputs
        mean = variance = None
        moments = shifts is not None
        if spec.norm == "batch" and affine.mean is None:
            mean, variance = self.batch_statistics(y, decay.dtype, spec)
            affine = affine._replace(mean=mean, inverse=inverse_std(variance, spec))
        tiling = self._tiling(y, spec, summed=moments, kept=2 * spec.time_steps * moments)
        spikes = y.new_empty(spec.time_steps, *y.shape[1:])
        partials = None
        if moments:
            partials = decay.new_empty(3, tiling.programs, spec.time_steps)
        thresholds, widths = thresholds.contiguous(), widths.contiguous()
        _launch(
            triton_kernels.fire_steps,
            tiling,
            *(y, spikes, *_contiguous(affine), decay, thresholds, widths, partials),
            *(*tiling.sizes[:3], tiling.elements, *tiling.sizes[3:]),
            T=spec.time_steps,
            STATIC=y.shape[0] == 1,
            MOMENTS=moments,
            dtype=decay.dtype,
            **_neuron(spec, thresholds[0], widths[0]),
            NORM=spec.norm != "none",
            **tiling.constants,
        )
        u_mean = u_variance = None
        if partials is not None:
            u_mean, u_variance = _pooled(partials, divide=True)
        return Fired(spikes, mean, variance, u_mean, u_variance)

    def advance(
        self, y: Tensor, previous: Step | None, affine: Affine, values: tuple[Tensor, ...], spec: Spec
    ) -> tuple[Tensor, Tensor, Tensor, State]:
        """See `formulas.advance`. The previous u is overwritten."""
        if not _has_kernels(spec):
            return _compiled().advance(y, previous, affine, values, spec)
        (decay,) = values
        tiling = self._tiling(y, spec, summed=True)
        spikes: Tensor | None = None
        if previous is None:
            u, threshold, width = y.new_empty(y.shape[1:], dtype=decay.dtype), decay, decay
        else:
            u, threshold, width, spikes, *_ = previous
        partials = decay.new_empty(3, tiling.programs, 1)
        threshold, width = threshold.contiguous(), width.contiguous()
        _launch(
            triton_kernels.advance_step,
            tiling,
            *(y, u, spikes, *_contiguous(affine), decay, threshold, width, partials),
            *tiling.sizes,
            FIRST=previous is None,
            NORM=spec.norm != "none",
            dtype=decay.dtype,
            **_neuron(spec, threshold, width),
            **tiling.constants,
        )
        mean, squares = _pooled(partials, divide=False)
        return u, mean.view(()), squares.view(()), ()

    def finish(self, last: Step, spec: Spec) -> None:
        """See `formulas.finish`."""
        if not _has_kernels(spec):
            _compiled().finish(last, spec)
            return
        u, threshold, width, spikes, *_ = last
        tiling = self._tiling(u[None], spec, summed=False)
        threshold, width = threshold.contiguous(), width.contiguous()
        _launch(
            triton_kernels.finish_step,
            tiling,
            *(u, spikes, threshold, width, *tiling.sizes),
            dtype=u.dtype,
            **_neuron(spec, threshold, width),
            **tiling.constants,
        )

    def backward(self, inputs: Inputs, arriving: Arriving, spec: Spec, wanted: Wanted) -> Gradients:
        """See `formulas.backward`."""
        if not _has_kernels(spec):
            return _compiled().backward(inputs, arriving, spec, wanted)
        y, affine, thresholds, widths, (decay,), *_ = inputs
        rows = _Rows.of(spec, wanted)
        thresholds, widths = thresholds.contiguous(), widths.contiguous()
        grad_y = torch.empty_like(y)

        def launch(tiling: Tiling, sums: Tensor | None, partials: Tensor | None, rows: _Rows, write: bool) -> None:
            _launch(
                triton_kernels.backward_steps,
                tiling,
                *(arriving.spikes, *_contiguous((arriving.u_mean, arriving.u_variance))),
                *(y, *_contiguous(affine), decay, thresholds, widths, arriving.mean, sums, grad_y, partials),
                *(*tiling.sizes[:3], tiling.elements, spec.count(y), *tiling.sizes[3:]),
                T=spec.time_steps,
                STATIC=y.shape[0] == 1,
                NORM=spec.norm != "none",
                DETACH_RESET=spec.detach_reset,
                GRAD_MEAN=arriving.u_mean is not None,
                GRAD_VARIANCE=arriving.u_variance is not None,
                WRITE=write,
                CORRECT=sums is not None,
                AFFINE_ROW=rows.affine,
                DECAY_ROW=rows.decay,
                THRESHOLDS_ROW=rows.thresholds,
                WIDTHS_ROW=rows.widths,
                dtype=decay.dtype,
                **_neuron(spec, thresholds[0], widths[0]),
                **tiling.constants,
            )

        sums = None
        if rows.count:
            summed_steps = wanted.thresholds + wanted.widths
            tiling = self._tiling(y, spec, summed=True, kept=spec.time_steps * (1 + summed_steps))
            partials = decay.new_empty(rows.count, tiling.parts, tiling.channels)
            launch(tiling, None, partials, rows, write=spec.norm != "batch")
            sums = partials.sum(1)
        if spec.norm == "batch" or sums is None:
            tiling = self._tiling(y, spec, summed=False, kept=spec.time_steps)
            launch(tiling, sums if spec.norm == "batch" else None, None, _Rows(), write=True)
        return rows.gradients(grad_y, sums, inputs, spec, wanted)

    def forward_part(
        self, inputs: Inputs, shifts: Tensor | None, part: Part, spec: Spec
    ) -> tuple[State, Tensor | None, Tensor | None]:
        """See `formulas.forward_part`. Its neurons have compiled kernels alone."""
        return _compiled().forward_part(inputs, shifts, part, spec)

    def backward_part(
        self, inputs: Inputs, arriving: Arriving, part: Part, spec: Spec, wanted: Wanted
    ) -> tuple[Gradients, State]:
        """See `formulas.backward_part`."""
        return _compiled().backward_part(inputs, arriving, part, spec, wanted)

    def add_through_statistics(self, grad_y: Tensor, y: Tensor, slope: Tensor, offset: Tensor, spec: Spec) -> None:
        """See `formulas.add_through_statistics`."""
        _compiled().add_through_statistics(grad_y, y, slope, offset, spec)

    def _tiling(self, values: Tensor, spec: Spec, *, summed: bool, kept: int = 0) -> Tiling:
        """The tiling of one step of `values`. summed: programs store partial sums; kept: see `Tiling.of`."""
        most_programs = self.programs if summed else None
        return Tiling.of((1, *values.shape[1:]), spec, tile=self.tile, kept=kept, most_programs=most_programs)


@dataclass(frozen=True)
class _Rows:
    """Rows in which `kernels.backward_steps` stores its sums; -1 if not wanted."""

    affine: int = -1
    decay: int = -1
    thresholds: int = -1
    widths: int = -1
    count: int = 0

    @classmethod
    def of(cls, spec: Spec, wanted: Wanted) -> _Rows:
        rows = {}
        count = 0
        for name, needed, length in (
            ("affine", spec.norm == "batch" or (spec.norm == "given" and wanted.affine), 2),
            ("decay", wanted.values[0] and spec.time_steps > 1, 1),
            ("thresholds", wanted.thresholds, spec.time_steps),
            ("widths", wanted.widths, spec.time_steps),
        ):
            if needed:
                rows[name] = count
                count += length
        return cls(**rows, count=count)

    def gradients(
        self,
        grad_y: Tensor,
        sums: Tensor | None,
        inputs: Inputs,
        spec: Spec,
        wanted: Wanted,
    ) -> Gradients:
        """All gradients, from the gradient of y and the sums [rows, C]."""
        gain = bias = thresholds = widths = None
        decay = torch.zeros_like(inputs.decay) if wanted.values[0] else None
        if sums is not None:
            if self.affine >= 0 and inputs.affine.inverse is not None:
                bias, gain = sums[self.affine], sums[self.affine + 1] * inputs.affine.inverse
            if self.decay >= 0:
                decay = sums[self.decay].sum()
            if self.thresholds >= 0:
                thresholds = _sum_like(sums[self.thresholds : self.thresholds + spec.time_steps], inputs.thresholds)
            if self.widths >= 0:
                widths = _sum_like(sums[self.widths : self.widths + spec.time_steps], inputs.widths)
        return Gradients(grad_y, gain, bias, thresholds, widths, (decay,))


def _launch(kernel: Any, tiling: Tiling, *arguments: Any, dtype: torch.dtype, **constants: Any) -> None:
    values = arguments[0]
    problem = None if values.is_cuda else triton_problem(values.device.type)
    if problem is not None:
        raise UserError(f"engine=triton: {problem}.")
    # No fused multiply-adds: the backward pass must reproduce the forward pass's spikes exactly, and the compiler may
    # fuse differently in each kernel. This costs nothing, because these kernels are bound by memory bandwidth.
    with _on_device(values):
        kernel[(tiling.programs,)](*arguments, DT=_dtype(dtype), **constants, enable_fp_fusion=False)


def _on_device(values: Tensor) -> AbstractContextManager[Any]:
    """Triton launches on the current GPU, which may not be the tensor's."""
    return torch.cuda.device(values.device) if values.is_cuda else nullcontext()


def _pooled(partials: Tensor, divide: bool) -> tuple[Tensor, Tensor]:
    """Means and sums of squared deviations (with `divide`: variances) [K] of partials [3, N, K]."""
    _, parts, count = partials.shape
    mean, squares = partials.new_empty(2, count).unbind(0)
    block = min(16, power_of_2(count))
    with _on_device(partials):
        triton_kernels.pool[(math.ceil(count / block),)](
            *(partials, mean, squares, parts, count),
            DIVIDE=divide,
            BLOCK_N=min(64, power_of_2(parts)),
            BLOCK_K=block,
            DT=_dtype(partials.dtype),
            enable_fp_fusion=False,
        )
    return mean, squares


def _neuron(spec: Spec, threshold: Tensor, width: Tensor) -> dict[str, Any]:
    return {
        "CHANNEL_THRESHOLDS": threshold.ndim == 1,
        "CHANNEL_WIDTHS": width.ndim == 1,
        "SURROGATE": spec.surrogate.name,
        "SMOOTH": spec.smooth,
    }


def _contiguous(values: Sequence[Tensor | None]) -> tuple[Tensor | None, ...]:
    return tuple(None if value is None else value.contiguous() for value in values)


def _sum_like(sums: Tensor, like: Tensor) -> Tensor:
    return sums if like.ndim == 2 else sums.sum(1)


def _has_kernels(spec: Spec) -> bool:
    name = spec.surrogate.name
    if spec.rules is not None:
        return False
    return name in triton_surrogates.NAMES and SURROGATES.get(name) == spec.surrogate


@functools.cache
def _compiled() -> Kernels:
    from gradspike.engine import compiled

    return compiled.run.kernels


def _dtype(dtype: torch.dtype) -> tl.dtype:
    return tl.float64 if dtype == torch.float64 else tl.float32


run = FusedEngine(TritonKernels(), MOST_STEPS)
