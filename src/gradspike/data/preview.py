"""A contact sheet of a data set as a PNG file: stored samples, and the network's input in training."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gradspike.data.augment.batch import BatchTransform
from gradspike.data.augment.counter_random import CounterRandom
from gradspike.data.options.base import DatasetConfig
from gradspike.data.source import Samples
from gradspike.drawing import naming_missing_letters
from gradspike.exhausted import not_written
from gradspike.shown import counted, printable

MOST_CLASSES = 20
MOST_FRAMES = 10
PICTURES = 6
"""Images per class, and epochs beside them."""
RECORDINGS = 2
"""Recordings per class, and epochs beside them."""
DRAW = 1_000_003
"""Draw number of the random choice of samples, far from those of augmentation."""

# Okabe and Ito's vermilion and blue, which are safe for colour-blind readers.
ON, OFF = (np.array(colour) / 255 for colour in ((213, 94, 0), (0, 114, 178)))
RASTER = 200
"""Side in pixels of the picture of a spike train."""
GAP = 3
MARGIN = 14
HEADER = 62
DPI = 100

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class _Row:
    """One class: stored samples, and the first of them in several epochs."""

    name: str
    stored: Pixels
    augmented: Pixels


def draw_preview(path: Path, config: DatasetConfig, samples: Samples, seed: int) -> None:
    """Draw training samples of every class, or of MOST_CLASSES evenly spaced classes, into a PNG file.

    The right half is the network's input in the first epochs of a run with this seed, without normalisation.
    """
    count = PICTURES if config.kind == "image" else RECORDINGS
    transform = BatchTransform(config, seed, samples.mean, samples.std)
    train = samples.indices("train")
    labels = samples.labels[train]
    present = np.unique(labels)
    shown = present[np.unique(np.linspace(0, len(present) - 1, min(len(present), MOST_CLASSES)).round().astype(int))]
    rows = []
    for label in shown.tolist():
        chosen = _choose(train[labels == label], count)
        stored = _fetch(samples, chosen, None)
        epochs = [_shown_to_network(samples, transform, chosen[:1], epoch) for epoch in range(count)]
        name = printable(samples.class_names[label]) if samples.class_names else str(label)
        rows.append(_Row(name, _strip(_colours(stored), config), _strip(np.concatenate(epochs), config)))
    of = f"{len(shown)} of " if len(shown) < len(present) else ""
    title = f"{config.name}: {of}{counted(len(present), 'class', 'classes')}, training split, seed {seed}"
    _save(path, rows, title, *_captions(config, stored.shape[1], count))


def _captions(config: DatasetConfig, steps: int, count: int) -> tuple[str, str]:
    """The captions of the two halves."""
    if not config.has_space:
        return f"as stored: {counted(steps, 'step')} in time, channel 0 at the bottom", (
            f"the first sample in epochs 1 to {count}"
        )
    if config.kind == "image":
        shown = "as evaluated" if config.compressed else "as stored"
        return f"{shown}, {config.image_size}x{config.image_size} pixels", f"the first sample in epochs 1 to {count}"
    frames = f"{f'{MOST_FRAMES} of ' if steps > MOST_FRAMES else ''}{counted(steps, 'frame')} in time"
    return f"as stored: {frames}, ON orange, OFF blue", f"the first sample in epochs 1 to {count}"


def _choose(members: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Select up to `count` samples at random, the same on every machine."""
    keys = CounterRandom.per_sample(0, 0, members).bits(DRAW)
    return members[np.argsort(keys, kind="stable")[:count]]


def _fetch(samples: Samples, indices: NDArray[np.int64], moment: tuple[int, int] | None) -> NDArray[Any]:
    return np.array(samples.fetch(indices, moment))


def _shown_to_network(
    samples: Samples, transform: BatchTransform, index: NDArray[np.int64], epoch: int
) -> NDArray[Any]:
    """The network's input in an epoch: pixels [1, S, S, 3], or coloured frames [1, T, S, S, 3]."""
    raw = torch.from_numpy(_fetch(samples, index, (transform.seed, epoch)))
    values = transform(raw, torch.from_numpy(index), epoch)
    if transform.config.kind == "frames":
        return _colours(values.transpose(0, 1).numpy())
    if transform.config.divisor is None:
        mean, std = (torch.tensor(numbers).view(-1, 1, 1) for numbers in (transform.mean, transform.std))
        values = values * std + mean
    return _colours((values * 255).round().clamp(0, 255).to(torch.uint8).numpy())


def _colours(inputs: NDArray[Any]) -> Pixels:
    """Turn channels into colours: [n, 1 or 3, S, S] or frames [n, T, 2, S, S] -> [..., S, S, 3].

    Events range from white to the colour of their polarity, saturated at a sample's 99th percentile. Spike trains
    [n, T, C, 1, 1] become pictures of time and channels, [n, 1, RASTER, RASTER, 3].
    """
    if inputs.ndim == 5 and inputs.shape[-2:] == (1, 1):
        return _raster(inputs)
    if inputs.ndim == 4:
        return np.ascontiguousarray(np.broadcast_to(np.moveaxis(inputs, 1, -1), (*_moved(inputs), 3)))
    light = np.empty((*inputs.shape[:2], *inputs.shape[3:], 3))
    for sample, counts in enumerate(inputs.astype(np.float64)):
        positive = counts[counts > 0]
        strength = np.clip(counts / (np.percentile(positive, 99) if len(positive) else 1), 0, 1)[..., None]
        off, on = strength[:, 0] * (1 - OFF), strength[:, 1] * (1 - ON)
        light[sample] = 1 - np.maximum(off, on)
    return (light * 255).round().astype(np.uint8)


def _raster(inputs: NDArray[Any]) -> Pixels:
    """Spike trains [n, T, C, 1, 1] as pictures with time to the right and channels upwards, darker for more spikes."""
    from PIL import Image

    pictures = []
    for counts in inputs[..., 0, 0].astype(np.float64):
        light = (255 * (1 - counts / max(counts.max(), 1))).round().astype(np.uint8)
        picture = Image.fromarray(np.ascontiguousarray(light.T[::-1]))
        pictures.append(np.asarray(picture.resize((RASTER, RASTER), Image.Resampling.BOX)))
    return np.ascontiguousarray(
        np.broadcast_to(np.stack(pictures)[:, None, :, :, None], (len(inputs), 1, RASTER, RASTER, 3))
    )


def _moved(inputs: NDArray[Any]) -> tuple[int, ...]:
    return inputs.shape[0], *inputs.shape[2:]


def _strip(colours: Pixels, config: DatasetConfig) -> Pixels:
    """Images side by side, or recordings below each other with their frames side by side."""
    if not config.has_space:
        return _tiled(colours, RASTER, RASTER)
    if config.kind == "image":
        return _tiled(colours[None], 64, 96)
    steps = colours.shape[1]
    kept = np.unique(np.linspace(0, steps - 1, min(steps, MOST_FRAMES)).round().astype(int))
    return _tiled(colours[:, kept], 48, 64)


def _tiled(grid: Pixels, least: int, most: int) -> Pixels:
    """Tile [rows, columns, S, S, 3] into one image, with cells scaled to about `least` to `most` pixels per side."""
    size = grid.shape[2]
    if size > most:
        from PIL import Image

        cells = grid.reshape(-1, size, size, 3)
        reduced = [np.asarray(Image.fromarray(cell).resize((most, most), Image.Resampling.BOX)) for cell in cells]
        grid = np.stack(reduced).reshape(*grid.shape[:2], most, most, 3)
    else:
        times = math.ceil(least / size)
        grid = grid.repeat(times, axis=2).repeat(times, axis=3)
    cell = grid.shape[2]
    canvas = np.full((len(grid) * (cell + GAP) - GAP, grid.shape[1] * (cell + GAP) - GAP, 3), 255, dtype=np.uint8)
    for row, column in np.ndindex(*grid.shape[:2]):
        top, left = row * (cell + GAP), column * (cell + GAP)
        canvas[top : top + cell, left : left + cell] = grid[row, column]
    if grid.shape[1] > 1 and len(grid) > 1:  # lines between white frames
        for column in range(1, grid.shape[1]):
            canvas[:, column * (cell + GAP) - 2] = 205
    return canvas


def _save(path: Path, rows: list[_Row], title: str, left_caption: str, right_caption: str) -> None:
    """Arrange the rows with names and captions, and write the file atomically."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = [row.name if len(row.name) <= 26 else row.name[:25] + "…" for row in rows]
    left = 2 * MARGIN + 7 * max(len(name) for name in names)
    right = left + max(7 * len(left_caption), *(row.stored.shape[1] for row in rows)) + 2 * MARGIN
    half = max(7 * len(right_caption), *(row.augmented.shape[1] for row in rows))
    width = max(right + half, 9 * len(title) + MARGIN) + MARGIN
    space = GAP if len(rows[0].stored) < 110 else 3 * GAP
    height = HEADER + sum(len(row.stored) + space for row in rows) + MARGIN
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
    canvas = FigureCanvasAgg(figure)

    def write(x: float, y: float, text: str, **style: Any) -> None:
        # No math text, because a name may contain $ or _.
        figure.text(x / width, 1 - y / height, text, parse_math=False, **style)

    write(MARGIN, 24, title, fontsize=11, fontweight="bold")
    write(left, HEADER - 12, left_caption, fontsize=9, color="0.3")
    write(right, HEADER - 12, right_caption, fontsize=9, color="0.3")
    top = HEADER
    for row, name in zip(rows, names, strict=True):
        bottom = height - top - len(row.stored)
        figure.figimage(row.stored, left, bottom, origin="upper")
        figure.figimage(row.augmented, right, bottom, origin="upper")
        write(left - MARGIN, top + len(row.stored) / 2, name, fontsize=8, ha="right", va="center")
        top += len(row.stored) + space
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with naming_missing_letters(f"preview={path}"):
            canvas.print_figure(temporary, format="png", dpi=DPI, facecolor="white")
        temporary.replace(path)
    except OSError as error:
        raise not_written(path, error, named="preview=") from error
    finally:
        temporary.unlink(missing_ok=True)
