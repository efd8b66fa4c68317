"""The formulas as hand-written Triton kernels: for CUDA, and, slowly, for a CPU with TRITON_INTERPRET=1.

Forward: one pass over the layer's input for the statistics of its norm, and one that normalises, runs the recursion and
writes the spikes. Backward: one pass that sums what the norm, the decay and learned thresholds and widths need, and one
that writes the gradient of the input; a norm with given statistics, or none, needs a single pass. Each of the two
computes u and dL/dx anew: to write dL/dx in the first and read it in the second would move more bytes (six instead of
five tensors of the input's size), and a dtype shorter than the recursion's would round it once more or ask for a
scratch tensor of four bytes a value.
"""

from __future__ import annotations

import functools
import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import triton.language as tl
from torch import Tensor

from gradspike.engine.formulas import Affine, Fired, Gradients, Spec, Wanted, inverse_std
from gradspike.engine.fused import FusedEngine, Kernels
from gradspike.engine.registry import triton_problem
from gradspike.engine.triton import kernels as triton_kernels
from gradspike.engine.triton import surrogates as triton_surrogates
from gradspike.errors import UserError
from gradspike.surrogate import SURROGATES

WIDEST = 128
"""Channels of a tile of rows: a whole cache line in any dtype."""

SMALLEST = 128
"""Values of a tile that give each thread of a program one."""

KEPT = 6
"""Tensors of a whole tile's size that a program may keep, 8 registers each in float32; of more, tiles are smaller."""

MOST_STEPS = 32
"""Kernels unroll all steps and keep their potentials in registers: at 24 steps one takes seconds to compile, at 48
steps 40 s, and registers no longer suffice. Beyond this many, compiled kernels take over."""

WIDE_FROM = 2**31 - 2**24
"""Elements from which on their offsets take 64 bits; some room is left for the last tile."""


@dataclass(frozen=True)
class TritonKernels:
    """The functions of `formulas` as Triton kernels.

    A surrogate that is not one of `SURROGATES` has no kernel here, nor have very many steps: they are compiled instead.

    Attributes:
        tile: values of a whole tile, a power of 2.
        programs: at most about so many programs sum parts of one thing. It does not depend on the device, so that the
            order of summation does not either.
    """

    tile: int = 1024
    programs: int = 1024

    def batch_statistics(self, y: Tensor, dtype: torch.dtype, spec: Spec) -> tuple[Tensor, Tensor]:
        """See `formulas.batch_statistics`."""
        tiling = self._tiling(y, spec, all_steps=True, summed=True)
        partials = y.new_empty(3, tiling.parts, tiling.channels, dtype=dtype)
        _launch(triton_kernels.channel_statistics, tiling, y, partials, *tiling.sizes, dtype=dtype, **tiling.constants)
        return _pooled(partials, divide=True)

    def forward(
        self,
        y: Tensor,
        affine: Affine,
        decay: Tensor,
        thresholds: Tensor,
        widths: Tensor,
        shifts: Tensor | None,
        spec: Spec,
    ) -> Fired:
        """See `formulas.forward`. Of `shifts` only whether they are there counts: sums here are Welford's."""
        if not _has_kernels(spec):
            return _compiled().forward(y, affine, decay, thresholds, widths, shifts, spec)
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
            *(*tiling.sizes[:3], tiling.step, *tiling.sizes[3:]),
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
        self,
        y: Tensor,
        u: Tensor | None,
        threshold: Tensor | None,
        width: Tensor | None,
        spikes: Tensor | None,
        affine: Affine,
        decay: Tensor,
        spec: Spec,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `formulas.advance`. The u that is given is charged in its place."""
        if not _has_kernels(spec):
            return _compiled().advance(y, u, threshold, width, spikes, affine, decay, spec)
        tiling = self._tiling(y, spec, summed=True)
        first = u is None
        if u is None:
            u = y.new_empty(y.shape[1:], dtype=decay.dtype)
        if threshold is None or width is None:
            threshold = width = decay
        partials = decay.new_empty(3, tiling.programs, 1)
        threshold, width = threshold.contiguous(), width.contiguous()
        _launch(
            triton_kernels.advance_step,
            tiling,
            *(y, u, spikes, *_contiguous(affine), decay, threshold, width, partials),
            *tiling.sizes,
            FIRST=first,
            NORM=spec.norm != "none",
            dtype=decay.dtype,
            **_neuron(spec, threshold, width),
            **tiling.constants,
        )
        mean, squares = _pooled(partials, divide=False)
        return u, mean.view(()), squares.view(())

    def finish(self, u: Tensor, threshold: Tensor, width: Tensor, spikes: Tensor, spec: Spec) -> None:
        """See `formulas.finish`."""
        if not _has_kernels(spec):
            _compiled().finish(u, threshold, width, spikes, spec)
            return
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

    def backward(
        self,
        grad_spikes: Tensor,
        grad_u_mean: Tensor | None,
        grad_u_variance: Tensor | None,
        y: Tensor,
        affine: Affine,
        decay: Tensor,
        thresholds: Tensor,
        widths: Tensor,
        u_mean: Tensor | None,
        spec: Spec,
        wanted: Wanted,
    ) -> Gradients:
        """See `formulas.backward`."""
        given = (grad_spikes, grad_u_mean, grad_u_variance, y, affine, decay, thresholds, widths, u_mean)
        if not _has_kernels(spec):
            return _compiled().backward(*given, spec, wanted)
        rows = _Rows.of(spec, wanted)
        thresholds, widths = thresholds.contiguous(), widths.contiguous()
        grad_y = torch.empty_like(y)

        def launch(tiling: Tiling, sums: Tensor | None, partials: Tensor | None, rows: _Rows, write: bool) -> None:
            _launch(
                triton_kernels.backward_steps,
                tiling,
                *(grad_spikes, _step_gradient(grad_u_mean), _step_gradient(grad_u_variance)),
                *(y, *_contiguous(affine), decay, thresholds, widths, u_mean, sums, grad_y, partials),
                *(*tiling.sizes[:3], tiling.step, spec.count(y), *tiling.sizes[3:]),
                T=spec.time_steps,
                STATIC=y.shape[0] == 1,
                NORM=spec.norm != "none",
                DETACH_RESET=spec.detach_reset,
                GRAD_MEAN=grad_u_mean is not None,
                GRAD_VARIANCE=grad_u_variance is not None,
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
        return rows.gradients(grad_y, sums, affine, decay, thresholds, widths, spec, wanted)

    def _tiling(self, values: Tensor, spec: Spec, *, summed: bool, all_steps: bool = False, kept: int = 0) -> Tiling:
        """Of one step of `values`, or of all as one; `kept` tensors of a tile's size stay while a program runs."""
        steps = values.shape[0] if all_steps else 1
        if spec.arrangement == "rows":
            _, parts, rows, channels = values.shape
            size, plane = steps * parts * rows, 1
        else:
            _, parts, channels, plane = values.shape
            size = steps * parts * plane
        tile = max(self.tile // _power_of_2(math.ceil(kept / KEPT)), min(self.tile, SMALLEST))
        block_c = 1 if spec.arrangement == "planes" else min(WIDEST, tile, _power_of_2(channels))
        block_m = min(tile // block_c, _power_of_2(size))
        tiles, blocks = math.ceil(size / block_m), math.ceil(channels / block_c)
        parts = min(tiles, max(1, self.programs // blocks)) if summed else tiles
        return Tiling(
            size, channels, plane, parts, math.ceil(tiles / parts), block_m, block_c, blocks, spec.arrangement
        )


@dataclass(frozen=True)
class Tiling:
    """How the values of a step, or of all, are divided among programs; see `triton_kernels`."""

    values: int
    channels: int
    plane: int
    parts: int
    per: int
    block_m: int
    block_c: int
    blocks: int
    arrangement: str

    @property
    def step(self) -> int:
        """Elements that are divided."""
        return self.values * self.channels

    @property
    def programs(self) -> int:
        """Size of the grid."""
        return self.parts * self.blocks

    @property
    def sizes(self) -> tuple[int, ...]:
        """M, C, S, parts, per."""
        return self.values, self.channels, self.plane, self.parts, self.per

    @property
    def constants(self) -> dict[str, Any]:
        """What is compiled into a kernel."""
        return {
            "PLANES": self.arrangement == "planes",
            "BLOCK_M": self.block_m,
            "BLOCK_C": self.block_c,
            "WIDE": self.step > WIDE_FROM,
        }


@dataclass(frozen=True)
class _Rows:
    """Where `triton_kernels.backward_steps` leaves its sums; -1: nobody asked."""

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
            ("decay", wanted.decay and spec.time_steps > 1, 1),
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
        affine: Affine,
        decay: Tensor,
        thresholds: Tensor,
        widths: Tensor,
        spec: Spec,
        wanted: Wanted,
    ) -> Gradients:
        """From the sums [rows, C]."""
        gain = bias = grad_thresholds = grad_widths = None
        grad_decay = torch.zeros_like(decay) if wanted.decay else None
        if sums is not None:
            if self.affine >= 0 and affine.inverse is not None:
                bias, gain = sums[self.affine], sums[self.affine + 1] * affine.inverse
            if self.decay >= 0:
                grad_decay = sums[self.decay].sum()
            if self.thresholds >= 0:
                grad_thresholds = _sum_like(sums[self.thresholds : self.thresholds + spec.time_steps], thresholds)
            if self.widths >= 0:
                grad_widths = _sum_like(sums[self.widths : self.widths + spec.time_steps], widths)
        return Gradients(grad_y, gain, bias, grad_decay, grad_thresholds, grad_widths)


def _launch(kernel: Any, tiling: Tiling, *arguments: Any, dtype: torch.dtype, **constants: Any) -> None:
    values = arguments[0]
    problem = None if values.is_cuda else triton_problem(values.device.type)
    if problem is not None:
        raise UserError(f"engine=triton: {problem}.")
    # Without fused multiply-adds: the backward pass has to find the very spikes of the forward pass, and where the
    # compiler fuses may differ from kernel to kernel. Memory is what these kernels wait for.
    with _on_device(values):
        kernel[(tiling.programs,)](*arguments, DT=_dtype(dtype), **constants, enable_fp_fusion=False)


def _on_device(values: Tensor) -> AbstractContextManager[Any]:
    """Triton launches on the current GPU, which need not be the tensor's."""
    return torch.cuda.device(values.device) if values.is_cuda else nullcontext()


def _pooled(partials: Tensor, divide: bool) -> tuple[Tensor, Tensor]:
    """Means and squared deviations (or variances) [K] of partials [3, N, K]."""
    _, parts, count = partials.shape
    mean, squares = partials.new_empty(2, count).unbind(0)
    block = min(16, _power_of_2(count))
    with _on_device(partials):
        triton_kernels.pool[(math.ceil(count / block),)](
            *(partials, mean, squares, parts, count),
            DIVIDE=divide,
            BLOCK_N=min(64, _power_of_2(parts)),
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


def _contiguous(affine: Affine) -> tuple[Tensor | None, ...]:
    """Gain, bias, mean, inverse."""
    return tuple(None if value is None else value.contiguous() for value in affine)


def _step_gradient(value: Tensor | None) -> Tensor | None:
    return None if value is None else value.contiguous()


def _sum_like(sums: Tensor, like: Tensor) -> Tensor:
    return sums if like.ndim == 2 else sums.sum(1)


def _has_kernels(spec: Spec) -> bool:
    name = spec.surrogate.name
    ours = name in triton_surrogates.NAMES and SURROGATES.get(name) == spec.surrogate
    return ours and spec.time_steps <= MOST_STEPS


@functools.cache
def _compiled() -> Kernels:
    from gradspike.engine import compiled

    return compiled.run.kernels


def _dtype(dtype: torch.dtype) -> tl.dtype:
    return tl.float64 if dtype == torch.float64 else tl.float32


def _power_of_2(number: int) -> int:
    """The first that is not below `number`."""
    return 1 << max(number - 1, 0).bit_length()


run = FusedEngine(TritonKernels())
