"""How the kernels see a layer's values: rows of channels, or a plane for each channel."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

PART = 16384
"""Maximum values of one step in a part, so that parts of several tensors fit in a core's cache together."""


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
