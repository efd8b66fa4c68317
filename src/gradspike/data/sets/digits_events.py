"""digits_events: scikit-learn's digits, recorded with saccades by a simulated event camera.

As in N-MNIST (Orchard et al., Front. Neurosci. 2015), three 100 ms saccades follow a triangle. The number of events at
an edge is proportional to its component perpendicular to the motion, so each saccade shows other parts of the outline.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from gradspike.data.camera import camera as event_camera
from gradspike.data.camera.camera import EventCamera
from gradspike.data.events.frames import to_frames
from gradspike.data.events.recording import Recording
from gradspike.data.events.table import FIELDS, Events, concatenate
from gradspike.data.options.base import DatasetConfig
from gradspike.data.options.events import DigitsEventsConfig
from gradspike.data.prepared.cache import prepared
from gradspike.data.prepared.stored import Prepared
from gradspike.data.sets.digits import read_digits
from gradspike.data.source import Samples, Source

VERSION = 1
FRAMES_VERSION = 2

SIZE: int = DigitsEventsConfig.model_fields["image_size"].default
SACCADE_US = 100_000
SAMPLES_PER_SACCADE = 32
CORNERS = ((-3, -2), (0, 3), (3, -2), (-3, -2))
"""(x, y) offset of the image from the sensor's centre, in sensor pixels: an isosceles triangle."""
DURATION_US = SACCADE_US * (len(CORNERS) - 1)

_CHUNK = 128


class DigitsEvents(Source[DigitsEventsConfig]):
    """Frames [T, 2, 24, 24] of the recorded digits, with the labels and split of `digits`."""

    Config: ClassVar[type[DatasetConfig]] = DigitsEventsConfig

    @override
    def load(self) -> Samples:
        config = self.config
        key = {
            **self._events_key(),
            "frames_version": FRAMES_VERSION,
            "time_steps": self.time_steps,
            "bins": config.bins,
        }
        opened = prepared(self.data_dir, config.name, key, self._build_frames)
        arrays = opened.arrays
        return Samples(arrays["inputs"], arrays["labels"], arrays["splits"], folder=opened.folder)

    @override
    def frames(self, recording: Recording, span_us: tuple[int, int] | None = None) -> NDArray[Any]:
        recording.check(SIZE, SIZE)
        return to_frames(recording, (SIZE, SIZE), self.time_steps, self.config.bins, span_us or (0, DURATION_US))

    def load_events(self) -> Prepared:
        """Open the events (arrays t, x, y, p, offsets, labels, splits). Records them first if needed."""
        return prepared(self.data_dir, f"{self.config.name}-events", self._events_key(), self._build_events)

    def _events_key(self) -> dict[str, Any]:
        return {"version": VERSION, "camera_version": event_camera.VERSION, "camera": self.config.camera.model_dump()}

    def _build_events(self, folder: Path) -> dict[str, Any]:
        images, labels, splits = read_digits()
        events = record_digits(images, EventCamera(self.config.camera, SIZE, SIZE))
        events.save(folder)
        np.save(folder / "labels.npy", labels)
        np.save(folder / "splits.npy", splits)
        return {"events": len(events.t), "duration_us": DURATION_US, "sensor_size": [SIZE, SIZE]}

    def _build_frames(self, folder: Path) -> dict[str, Any]:
        arrays = self.load_events().arrays
        events = Events(**{field: arrays[field] for field in FIELDS})
        frames = np.stack(
            [
                to_frames(events.recording(index), (SIZE, SIZE), self.time_steps, self.config.bins, (0, DURATION_US))
                for index in range(len(events))
            ]
        )
        np.save(folder / "inputs.npy", frames)
        np.save(folder / "labels.npy", arrays["labels"])
        np.save(folder / "splits.npy", arrays["splits"])
        return {"events": len(events.t), "largest_count": int(frames.max())}


def record_digits(images: NDArray[np.uint8], camera: EventCamera) -> Events:
    """Record `images` (uint8 [N, 8, 8]) along the saccades. The index of an image seeds its noise."""
    index = np.arange(len(images), dtype=np.int64)
    path = saccade_path()
    parts = []
    for chunk in np.array_split(index, -(-len(index) // _CHUNK)):
        parts.append(camera.record(_scenes(images[chunk], path), sample_times(), chunk))
    return concatenate(parts)


def sample_times() -> NDArray[np.int64]:
    """Sample times of the scene in microseconds, from 0 to the last microsecond of the recording."""
    times = np.arange(SAMPLES_PER_SACCADE * (len(CORNERS) - 1) + 1, dtype=np.int64) * SACCADE_US // SAMPLES_PER_SACCADE
    times[-1] = DURATION_US - 1
    return times


def saccade_path() -> NDArray[np.int64]:
    """Position of the image's centre at each sample time, int64 [samples, 2 (x, y)], in 1/256 of a sensor pixel.

    A saccade starts and ends at rest: its position over time u is 3u^2 - 2u^3, computed exactly in integers.
    """
    n = SAMPLES_PER_SACCADE
    u = np.arange(n, dtype=np.int64)[:, None]
    corners = 256 * np.array(CORNERS, dtype=np.int64)
    legs = [start + (end - start) * (3 * n * u**2 - 2 * u**3) // n**3 for start, end in pairwise(corners)]
    return np.concatenate([*legs, corners[-1:]])


def _scenes(images: NDArray[np.uint8], path: NDArray[np.int64]) -> Iterator[NDArray[np.uint16]]:
    """Yield the images, scaled by 9/4 on black, at each position of the path: uint16 [R, SIZE, SIZE].

    Bilinear interpolation is a matrix product of integers below 2**24, so float64 arithmetic is exact in any order.
    """
    flat = images.reshape(len(images), -1).astype(np.float64)
    for x, y in path.tolist():
        weights = np.einsum("yi,xj->ijyx", _interpolation(y, images.shape[1]), _interpolation(x, images.shape[2]))
        light = flat @ weights.reshape(flat.shape[1], -1)
        # White is 255 * 256 * 256; multiplied by 257 / 2**16, it is exactly 65535.
        yield ((light.astype(np.int64) * 257) >> 16).astype(np.uint16).reshape(len(images), SIZE, SIZE)


def _interpolation(shift: int, pixels: int) -> NDArray[np.float64]:
    """Weights (in 1/256) of image pixels for each sensor pixel, at a shift of `shift`/256: [SIZE, pixels]."""
    centre = 128 * (2 * np.arange(SIZE, dtype=np.int64) + 1 - SIZE) - shift
    place = centre * 4 // 9 + 128 * (pixels - 1)
    left, fraction = place >> 8, place & 255
    weights = np.zeros((SIZE, pixels))
    for column, weight in ((left, 256 - fraction), (left + 1, fraction)):
        inside = np.flatnonzero((column >= 0) & (column < pixels))
        weights[inside, column[inside]] += weight[inside]
    return weights
