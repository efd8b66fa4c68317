"""Pooling with a deterministic backward pass on CUDA, and torch's numbers.

On CUDA, torch adds gradients atomically, in any order, and raises an error with `trainer.deterministic`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from typing_extensions import override

from gradspike.packed_spikes import largest_of, mark


class MaxPool2d(nn.MaxPool2d):
    """torch.nn.MaxPool2d without dilation and indices."""

    @override
    def forward(self, x: Tensor) -> Tensor:
        kernel, padding = _pair(self.kernel_size), _pair(self.padding)
        stride = kernel if self.stride is None else _pair(self.stride)
        pooled: Tensor = _MaxPool.apply(x, kernel, stride, padding, self.ceil_mode)
        largest = largest_of(x)
        return pooled if largest is None else mark(pooled, largest)


class AvgPool2x2(nn.AvgPool2d):
    """torch.nn.AvgPool2d(2)."""

    def __init__(self) -> None:
        super().__init__(2)

    @override
    def forward(self, x: Tensor) -> Tensor:
        pooled, largest = super().forward(x), largest_of(x)
        return pooled if largest is None else mark(pooled, 4 * largest, scale=0.25)


class AdaptiveAvgPool2d(nn.AdaptiveAvgPool2d):
    """torch.nn.AdaptiveAvgPool2d."""

    @override
    def forward(self, x: Tensor) -> Tensor:
        return adaptive_avg_pool2d(x, self.output_size)


class AdaptiveMaxPool2d(nn.AdaptiveMaxPool2d):
    """torch.nn.AdaptiveMaxPool2d(1); the gradient goes to the first of equal values."""

    @override
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(2).max(-1).values[..., None, None]


def adaptive_avg_pool2d(x: Tensor, output_size: Any) -> Tensor:
    """torch.nn.functional.adaptive_avg_pool2d."""
    rows, columns = (size or x.shape[axis] for size, axis in zip(_pair(output_size), (-2, -1), strict=True))
    if (rows, columns) == (1, 1):
        return F.adaptive_avg_pool2d(x, 1)  # torch computes this one as a mean
    if x.shape[-2] % rows == 0 and x.shape[-1] % columns == 0:
        return F.avg_pool2d(x, (x.shape[-2] // rows, x.shape[-1] // columns))
    means = [
        x[..., top:bottom, left:right].mean((-2, -1))
        for top, bottom in _windows(x.shape[-2], rows)
        for left, right in _windows(x.shape[-1], columns)
    ]
    return torch.unflatten(torch.stack(means, -1), -1, (rows, columns))


def make_deterministic(model: nn.Module) -> None:
    """Replace torch's pooling in a finished network by the classes above, where they compute the same."""
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            replacement = _replacement(layer)
            if replacement is not None:
                setattr(parent, name, replacement.train(layer.training))
    if isinstance(model, fx.GraphModule):
        for node in model.graph.nodes:
            if node.target is F.adaptive_avg_pool2d:
                node.target = adaptive_avg_pool2d
        model.recompile()


def _replacement(layer: nn.Module) -> nn.Module | None:
    if type(layer) is nn.MaxPool2d and layer.dilation in (1, (1, 1)) and not layer.return_indices:
        return MaxPool2d(layer.kernel_size, layer.stride, layer.padding, ceil_mode=layer.ceil_mode)
    if type(layer) is nn.AdaptiveAvgPool2d:
        return AdaptiveAvgPool2d(layer.output_size)
    if type(layer) is nn.AdaptiveMaxPool2d and layer.output_size in (1, (1, 1)) and not layer.return_indices:
        return AdaptiveMaxPool2d(1)
    return None


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int], ceil: bool
    ) -> Tensor:
        pooled, indices = F.max_pool2d(x, kernel, stride, padding, 1, ceil, return_indices=True)
        ctx.save_for_backward(indices)
        ctx.geometry, ctx.shape, ctx.strides = (kernel, stride, padding), x.shape, x.stride()
        return pooled

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (indices,) = ctx.saved_tensors
        kernel, stride, padding = ctx.geometry
        height, width = ctx.shape[-2:]
        grad_x = grad.new_empty_strided(ctx.shape, ctx.strides).zero_()
        # Loop over the positions in a window, the last one first, so that a value gets the gradients of its windows in
        # the order of torch's loop over windows on a CPU.
        for i in reversed(range(kernel[0])):
            rows = _inside(grad.shape[-2], i - padding[0], stride[0], height)
            for j in reversed(range(kernel[1])):
                columns = _inside(grad.shape[-1], j - padding[1], stride[1], width)
                y = torch.arange(rows.start, rows.stop, device=grad.device) * stride[0] + i - padding[0]
                x = torch.arange(columns.start, columns.stop, device=grad.device) * stride[1] + j - padding[1]
                chosen = indices[..., rows, columns] == y[:, None] * width + x
                place = grad_x[
                    ...,
                    slice(rows.start * stride[0] + i - padding[0], None, stride[0]),
                    slice(columns.start * stride[1] + j - padding[1], None, stride[1]),
                ][..., : rows.stop - rows.start, : columns.stop - columns.start]
                place += grad[..., rows, columns] * chosen
        return grad_x, None, None, None, None


def _inside(windows: int, offset: int, stride: int, size: int) -> slice:
    """The windows whose value at `offset` lies inside the input."""
    first = max(-(offset // stride), 0)
    last = min((size - 1 - offset) // stride, windows - 1)
    return slice(first, max(last + 1, first))


def _windows(size: int, out: int) -> list[tuple[int, int]]:
    """Start and end of each window of adaptive pooling."""
    return [(place * size // out, -(-(place + 1) * size // out)) for place in range(out)]


def _pair(value: Any) -> tuple[Any, Any]:
    return value if isinstance(value, tuple) else (value, value)
