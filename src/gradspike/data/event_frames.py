"""Events to frames, through tonic's transform."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray


def to_frames(
    events: NDArray[Any],
    sensor_size: tuple[int, int],
    time_steps: int,
    bins: Literal["equal_time", "equal_count"] = "equal_time",
    span_us: tuple[int, int] | None = None,
) -> NDArray[np.uint8]:
    """Count the events of a recording: uint8 [time_steps, 2 (OFF, ON), height, width], counts above 255 clipped.

    events: tonic's structured array (t, x, y, p), sorted by time. sensor_size: (width, height). bins: equal_time cuts
    the span [start, end) of microseconds (default: from the first event to the last) into equal parts; equal_count
    gives every frame the same number of events, to within one. Raises ValueError for an event outside span or sensor.

    tonic's own equal bins (ToFrame(n_time_bins=...), n_event_bins) round the width of a bin down and so lose the events
    at the end, in every recording at least the last one by time; and its answer for no events has another shape.
    Therefore the bin of each event is found here, in exact integers, and tonic is given the bin as the time, which its
    slices of width 1 then take apart without loss.
    """
    from tonic.transforms import ToFrame

    width, height = sensor_size
    if not len(events):
        return np.zeros((time_steps, 2, height, width), dtype=np.uint8)
    if events["x"].min() < 0 or events["y"].min() < 0 or events["x"].max() >= width or events["y"].max() >= height:
        raise ValueError(f"an event lies outside the sensor of {width} x {height} pixels")
    binned = events.copy()
    if bins == "equal_time":
        start, end = span_us if span_us is not None else (int(events["t"][0]), int(events["t"][-1]) + 1)
        if events["t"][0] < start or events["t"][-1] >= end:
            raise ValueError(f"an event lies outside the recording, {start} to {end} us")
        binned["t"] = (events["t"] - start) * time_steps // (end - start)
    else:
        binned["t"] = np.arange(len(events)) * time_steps // len(events)
    transform = ToFrame(sensor_size=(width, height, 2), time_window=1, start_time=0, end_time=time_steps)
    frames: NDArray[np.int16] = transform(binned)
    if int(frames.sum(dtype=np.int64)) != len(events):
        raise ValueError("a pixel has more events in one frame than tonic can count (32,767): use more time steps")
    return np.minimum(frames, 255).astype(np.uint8)
