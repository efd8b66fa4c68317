"""A simulated event camera (dynamic vision sensor).

The standard model: each pixel stores a reference log intensity and emits an ON (OFF) event when the log intensity rises
(falls) from it by the pixel's threshold (Lichtsteiner, Posch & Delbruck, IEEE JSSC 2008). Log intensity is interpolated
linearly between samples of the scene, so each event has its own timestamp. Events within a pixel's refractory period
are dropped, but still update the reference (ESIM: Rebecq, Gehrig & Scaramuzza, CoRL 2018). Thresholds vary across
pixels as fixed Gaussian noise, and each pixel emits noise events as a Poisson process (v2e: Hu, Liu & Delbruck,
CVPR-W 2021). The refractory period applies to noise events too; they do not update the reference.

All state is integer: log intensities and thresholds are multiples of 2**-16, times are whole microseconds, and random
numbers are hashes of counters. A recording is therefore bit-identical on every machine and in every batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradspike.data.augment.counter_random import CounterRandom
from gradspike.data.events.table import Events
from gradspike.data.options.camera import CameraConfig

VERSION = 1
WHITE = 65535
"""Intensity of white. Scenes are uint16, in linear light."""

_LOG_UNIT = 1 << 16
_PATTERN, _NOISE = 1, 2


class EventCamera:
    """A sensor of height x width pixels. config.sensor_seed seeds its thresholds."""

    def __init__(self, config: CameraConfig, height: int, width: int) -> None:
        self.config = config
        self.height, self.width = height, width
        light = np.arange(WHITE + 1) / WHITE + config.dark_level
        self.log_intensity = np.rint(np.log(light) * _LOG_UNIT).astype(np.int32)
        """Natural logarithm of each intensity, int32 [65536], in units of 2**-16."""
        self.on_threshold = self._thresholds(0)
        self.off_threshold = self._thresholds(2)
        """int32 [height * width], in units of 2**-16."""

    def _thresholds(self, draw: int) -> NDArray[np.int32]:
        """Draw from a normal distribution (Box & Muller 1958), clipped at 3 sigma to keep thresholds positive."""
        pixels = np.arange(self.height * self.width, dtype=np.int64)
        random = CounterRandom.per_sample(self.config.sensor_seed, _PATTERN, pixels)
        radius = np.sqrt(-2.0 * np.log(1.0 - random.uniform(draw)))
        normal = np.clip(radius * np.cos(2.0 * np.pi * random.uniform(draw + 1)), -3.0, 3.0)
        threshold = self.config.threshold * (1.0 + self.config.mismatch * normal)
        rounded: NDArray[np.int32] = np.rint(threshold * _LOG_UNIT).astype(np.int32)
        return rounded

    def record(
        self, samples: Iterable[NDArray[np.uint16]], times_us: NDArray[np.int64], recordings: NDArray[np.int64]
    ) -> Events:
        """Record several scenes at once.

        samples: intensities uint16 [R, height, width], one array per entry of `times_us` (int64, microseconds,
        ascending from 0). The scene should move by well under a pixel between samples. recordings: int64 [R], recording
        numbers, which seed the noise. Event times range from 0 to times_us[-1], inclusive.
        """
        end = int(times_us[-1])
        if times_us[0] != 0 or (np.diff(times_us) <= 0).any() or end >= 2**31:
            raise ValueError("times_us must start at 0, increase, and stay below 2**31 microseconds")
        time_bits = end.bit_length()
        if len(recordings).bit_length() + (self.height * self.width).bit_length() + time_bits + 1 > 63:
            raise ValueError("too many pixels x microseconds for one call: record fewer scenes at a time")
        # One integer per candidate event: a single sort orders them by recording, pixel, time and polarity.
        candidates = [
            (cell << time_bits | t) << 1 | p for cell, t, p in self._crossings(samples, times_us, len(recordings))
        ]
        cell, t, p = self._noise(end, recordings)
        code = np.sort(np.concatenate([*candidates, (cell << time_bits | t) << 1 | p]))
        cell, t, p = code >> (time_bits + 1), code >> 1 & ((1 << time_bits) - 1), code & 1
        kept = _survives(cell, t, self.config.refractory_us)
        return self._by_time(cell[kept], t[kept], p[kept], time_bits, len(recordings))

    def _crossings(
        self, samples: Iterable[NDArray[np.uint16]], times_us: NDArray[np.int64], count: int
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], int]]:
        """Threshold crossings between successive samples: cell (recording and pixel), time, polarity."""
        pixels = self.height * self.width
        scenes = iter(samples)
        before = self._log(next(scenes), count)
        reference = before.copy()
        for start, stop in zip(times_us[:-1].tolist(), times_us[1:].tolist(), strict=True):
            after = self._log(next(scenes), count)
            rise = after - reference
            for p, sign, thresholds in ((1, 1, self.on_threshold), (0, -1, self.off_threshold)):
                crossed = rise >= thresholds if p else rise <= -thresholds
                cell = np.flatnonzero(crossed)
                if not len(cell):
                    continue
                threshold = thresholds[cell % pixels].astype(np.int64)
                origin = reference.flat[cell].astype(np.int64)
                events = sign * rise.flat[cell] // threshold
                reference.flat[cell] += sign * events * threshold
                each = np.repeat(np.arange(len(cell)), events)
                nth = np.arange(len(each)) - np.repeat(np.cumsum(events) - events, events) + 1
                first = before.flat[cell].astype(np.int64)
                climb = np.abs(origin[each] + sign * nth * threshold[each] - first[each])
                slope = np.abs(after.flat[cell].astype(np.int64) - first)
                yield cell[each], start + (stop - start) * climb // slope[each], p
            before = after

    def _log(self, scene: NDArray[np.uint16], count: int) -> NDArray[np.int32]:
        if scene.shape != (count, self.height, self.width) or scene.dtype != np.uint16:
            raise ValueError(
                f"a scene must be uint16 {(count, self.height, self.width)}, not {scene.dtype} {scene.shape}"
            )
        logarithm: NDArray[np.int32] = self.log_intensity.take(scene).reshape(count, -1)
        return logarithm

    def _noise(self, end: int, recordings: NDArray[np.int64]) -> tuple[Any, Any, Any]:
        """Noise events: cell, time, polarity. A Poisson number of events at uniform pixels and times."""
        pixels = self.height * self.width
        random = CounterRandom.per_sample(self.config.sensor_seed, _NOISE, recordings)
        mean = self.config.noise_hz * 1e-6 * (end + 1) * pixels
        numbers = np.searchsorted(_poisson_cumulative(mean), random.uniform(0), side="right")
        recording = np.repeat(np.arange(len(recordings)), numbers)
        nth = np.arange(len(recording)) - np.repeat(np.cumsum(numbers) - numbers, numbers)
        event = CounterRandom.per_event(random.bits(1)[recording], nth)
        return recording * pixels + event.integers(0, 0, pixels - 1), event.integers(1, 0, end), event.integers(2, 0, 1)

    def _by_time(self, cell: Any, t: Any, p: Any, time_bits: int, count: int) -> Events:
        pixels = self.height * self.width
        recording, pixel = np.divmod(cell, pixels)
        pixel_bits = pixels.bit_length()
        code = np.sort(((recording << time_bits | t) << pixel_bits | pixel) << 1 | p)
        pixel = code >> 1 & ((1 << pixel_bits) - 1)
        numbers = np.bincount(recording, minlength=count)
        return Events(
            t=(code >> (1 + pixel_bits) & ((1 << time_bits) - 1)).astype(np.int32),
            x=(pixel % self.width).astype(np.int16),
            y=(pixel // self.width).astype(np.int16),
            p=(code & 1).astype(np.bool_),
            offsets=np.concatenate([[0], np.cumsum(numbers)]).astype(np.int64),
        )


def _survives(cell: NDArray[np.int64], t: NDArray[np.int64], refractory_us: int) -> NDArray[np.bool_]:
    """Mark events at least `refractory_us` after the cell's last surviving event. Input sorted by cell, then time."""
    survives = np.ones(len(cell), dtype=np.bool_)
    if refractory_us == 0 or not len(cell):
        return survives
    first = np.flatnonzero(np.concatenate([[True], cell[1:] != cell[:-1]]))
    numbers = np.diff(np.concatenate([first, [len(cell)]]))
    last = t[first]
    # Process the n-th event of all cells at once: survival depends on earlier survivors of the cell.
    for nth in range(1, int(numbers.max())):
        active = np.flatnonzero(numbers > nth)
        event = first[active] + nth
        survives[event] = t[event] - last[active] >= refractory_us
        last[active] = np.where(survives[event], t[event], last[active])
    return survives


def _poisson_cumulative(mean: float) -> NDArray[np.float64]:
    """P(N <= n) for n = 0, 1, ... until it rounds to 1 at the resolution of the random numbers."""
    if mean == 0:
        return np.ones(1)
    n = np.arange(int(mean + 10 * math.sqrt(mean) + 20))
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(n[1:]))])
    return np.cumsum(np.exp(n * math.log(mean) - mean - log_factorial))
