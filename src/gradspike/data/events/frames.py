"""Accumulates events into frames: counts per time bin, polarity and pixel, without dropping any event.

tonic's ToFrame (n_time_bins or n_event_bins) rounds the bin width down and drops the events at the end of every
recording. Here, bins are computed in exact integer arithmetic, and one `bincount` counts a whole recording.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gradspike.data.events.recording import Recording
from gradspike.shown import counted

LARGEST = 2**15 - 1


def to_frames(
    events: Recording | NDArray[Any],
    sensor_size: tuple[int, int],
    time_steps: int,
    bins: Literal["equal_time", "equal_count"] = "equal_time",
    span_us: tuple[int, int] | None = None,
    *,
    image_size: tuple[int, int] | None = None,
    binning: Literal["count", "binary"] = "count",
) -> NDArray[np.uint8] | NDArray[np.int16]:
    """Count events into frames [time_steps, 2 (OFF, ON), height, width], uint8, or int16 if a count exceeds 255.

    events: a Recording or tonic's structured array (t, x, y, p), sorted by time. sensor_size, image_size: (width,
    height). If they differ, each event goes to the pixel that covers its position (column * width // sensor width), so
    none is lost. bins: equal_time divides the span [start, end) in microseconds (default: first to last event) into
    equal intervals; equal_count gives every frame the same number of events, to within one. binning: binary clips
    counts to 1. Raises ValueError for an event outside the span or the sensor, and for a count above 32,767.
    """
    (t, x, y, p) = _columns(events)
    width, height = sensor_size
    columns, rows = image_size if image_size is not None else sensor_size
    shape = (time_steps, 2, rows, columns)
    if not len(t):
        return np.zeros(shape, dtype=np.uint8)
    if x.min() < 0 or y.min() < 0 or x.max() >= width or y.max() >= height:
        raise ValueError(f"an event is outside the sensor of {width} x {height} pixels")
    if bins == "equal_time":
        start, end = span_us if span_us is not None else (int(t[0]), int(t[-1]) + 1)
        if t[0] < start or t[-1] >= end:
            raise ValueError(f"an event is outside the recording, which lasts from {start} to {end} us")
        if (end - start) * time_steps >= 2**63:
            raise ValueError(f"{end - start:,} us are too long to divide into {counted(time_steps, 'frame')}")
        step = (t.astype(np.int64) - start) * time_steps // (end - start)
    else:
        step = np.arange(len(t)) * time_steps // len(t)
    # A table lookup per event is faster than a division.
    column = (np.arange(width) * columns // width)[x]
    row = (np.arange(height) * rows // height * columns)[y]
    counts = np.bincount(
        step * (2 * rows * columns) + p * np.int64(rows * columns) + row + column, minlength=int(np.prod(shape))
    ).reshape(shape)
    if binning == "binary":
        return (counts > 0).astype(np.uint8)
    return narrow(counts)


def narrow(counts: NDArray[Any]) -> NDArray[np.uint8] | NDArray[np.int16]:
    """Convert non-negative integer counts to uint8, or to int16 if any exceeds 255. Raises ValueError above 32,767."""
    largest = int(counts.max())
    if largest > LARGEST:
        raise ValueError(
            f"a pixel has {largest:,} events in one frame, more than {LARGEST:,}: use more time steps, windows, or "
            "binning=binary"
        )
    return counts.astype(np.uint8) if largest <= 255 else counts.astype(np.int16)


def tet_resize(values: NDArray[np.float32], size: int) -> NDArray[np.uint8]:
    """Resize frames [T, 2, H, W] in 0 to 1 like the released TET code. Returns uint8 [T, 2, size, size], times 255.

    Deng et al., ICLR 2022, data_loaders.py: ToPILImage, Resize((size, size)), ToTensor. This multiplies by 255, rounds
    down, and treats the two channels as luminance (OFF) and alpha (ON). PIL resizes both bilinearly and weights
    luminance by alpha. ON is therefore interpolated; OFF is averaged over pixels with ON events and lost elsewhere.
    """
    from PIL import Image

    levels = (values * 255).astype(np.uint8)
    resized = np.empty((len(levels), 2, size, size), dtype=np.uint8)
    for frame, out in zip(levels, resized, strict=True):
        picture = Image.fromarray(np.ascontiguousarray(frame.transpose(1, 2, 0)))  # mode LA
        out[:] = np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    return resized


def _columns(events: Recording | NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    if isinstance(events, Recording):
        return events.t, events.x, events.y, events.p
    return events["t"], events["x"], events["y"], events["p"]
