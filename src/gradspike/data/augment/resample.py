"""Shifts, rolls and mirrors each sample of a batch independently; draws the squares of cutout."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gradspike.data.augment.counter_random import CounterRandom


def shift(inputs: Tensor, rows: Tensor, columns: Tensor, largest: int, mirrored: Tensor | None = None) -> Tensor:
    """Shift each sample of [B, ..., H, W] down by rows[b] and right by columns[b], filling with zeros.

    rows, columns: int64 [B], -largest to largest. mirrored: bool [B], the samples to mirror horizontally afterwards.
    """
    padded = F.pad(inputs.flatten(1, -3), (largest, largest, largest, largest))
    return _cut(padded, largest - rows, largest - columns, mirrored, inputs.shape)


def roll(inputs: Tensor, rows: Tensor, columns: Tensor, largest: int) -> Tensor:
    """Shift each sample of [B, ..., H, W] circularly."""
    flat = inputs.flatten(1, -3)
    height, width = inputs.shape[-2:]
    # Padding never exceeds the image's size, because a larger circular shift equals its remainder.
    down, right = min(largest, height), min(largest, width)
    if largest > down:
        rows = rows % height
    if largest > right:
        columns = columns % width
    tall = torch.cat([flat[..., height - down :, :], flat, flat[..., :down, :]], dim=-2)
    padded = torch.cat([tall[..., width - right :], tall, tall[..., :right]], dim=-1)
    return _cut(padded, down - rows, right - columns, None, inputs.shape)


def mirror(inputs: Tensor, mirrored: Tensor) -> Tensor:
    """Mirror the samples of [B, ..., H, W] marked in `mirrored` (bool [B]) horizontally."""
    return torch.where(mirrored.view(-1, *[1] * (inputs.ndim - 1)), inputs.flip(-1), inputs)


def _cut(padded: Tensor, top: Tensor, left: Tensor, mirrored: Tensor | None, shape: torch.Size) -> Tensor:
    """Cut the H x W window at (top[b], left[b]) from each of [B, K, H + ..., W + ...]; returns `shape`."""
    if mirrored is None:
        mirrored = torch.zeros_like(top, dtype=torch.bool)
    by = cut_by_copies if padded.device.type == "cpu" else cut_by_index
    return by(padded, top, left, mirrored, shape[-2], shape[-1]).view(shape)


def cut_by_index(padded: Tensor, top: Tensor, left: Tensor, mirrored: Tensor, height: int, width: int) -> Tensor:
    """Cut all windows with one lookup: a few operations for any batch, for GPUs. Returns [B, K, H * W]."""
    row, column = (torch.arange(size, device=padded.device) for size in (height, width))
    places = row[:, None] * padded.shape[3] + torch.stack([column, column.flip(0)])[:, None]
    index = places.flatten(1)[mirrored.long()] + (top * padded.shape[3] + left)[:, None]
    return padded.flatten(2).gather(2, index[:, None].expand(-1, padded.shape[1], -1))


def cut_by_copies(padded: Tensor, top: Tensor, left: Tensor, mirrored: Tensor, height: int, width: int) -> Tensor:
    """Copy each window: on a CPU, 2 to 4 times as fast as a lookup. Returns [B, K, H, W]."""
    source = padded.numpy()
    windows = np.empty((*source.shape[:2], height, width), dtype=source.dtype)
    for sample, (y, x, flip) in enumerate(zip(top.tolist(), left.tolist(), mirrored.tolist(), strict=True)):
        window = source[sample, :, y : y + height, x : x + width]
        windows[sample] = window[..., ::-1] if flip else window
    return torch.from_numpy(windows)


def square(random: CounterRandom[Tensor], draws: tuple[int, int], side: int, height: int, width: int) -> Tensor:
    """A mask that is True in one square of `side` pixels per sample: bool [B, height, width].

    Its centre is uniform over all pixels (draws: row, column), and the square is clipped at the edges (DeVries &
    Taylor, arXiv 1708.04552).
    """
    inside = []
    for draw, size in zip(draws, (height, width), strict=True):
        first = (random.integers(draw, 0, size - 1) - side // 2)[:, None]
        place = torch.arange(size, device=first.device)
        inside.append((place >= first) & (place < first + side))
    return inside[0][:, :, None] & inside[1][:, None, :]
