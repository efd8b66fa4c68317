"""The simulated camera follows its model: one test for each physical property."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gradspike.data.camera.camera import EventCamera
from gradspike.data.events.table import Events
from gradspike.data.options.camera import CameraConfig

IDEAL = CameraConfig(threshold=0.2, mismatch=0.0, noise_hz=0.0, refractory_us=0)


def film(
    config: CameraConfig, scenes: NDArray[np.uint16], times: list[int] | NDArray[np.int64], first_recording: int = 0
) -> Events:
    """Record scenes [S, R, H, W] at the times [S]."""
    camera = EventCamera(config, *scenes.shape[2:])
    recordings = np.arange(scenes.shape[1], dtype=np.int64) + first_recording
    return camera.record(iter(scenes), np.asarray(times, dtype=np.int64), recordings)


def uniform_scenes(levels: list[int], height: int = 2, width: int = 3, recordings: int = 1) -> NDArray[np.uint16]:
    scenes = np.asarray(levels, dtype=np.uint16)[:, None, None, None]
    return np.broadcast_to(scenes, (len(levels), recordings, height, width)).copy()


def flicker(samples: int = 120, recordings: int = 3, size: int = 8) -> NDArray[np.uint16]:
    """A busy scene: the intensity of every pixel is a random walk."""
    steps = np.random.default_rng(5).integers(-9000, 9001, (samples, recordings, size, size))
    return np.clip(30000 + np.cumsum(steps, axis=0), 0, 65535).astype(np.uint16)


def log_change(config: CameraConfig, low: int, high: int) -> float:
    return float(np.log((high / 65535 + config.dark_level) / (low / 65535 + config.dark_level)))


def test_brightening_gives_on_events_and_darkening_off_events() -> None:
    brighter = film(IDEAL, uniform_scenes([5000, 60000]), [0, 1000])
    darker = film(IDEAL, uniform_scenes([60000, 5000]), [0, 1000])
    expected = int(log_change(IDEAL, 5000, 60000) / IDEAL.threshold)
    assert expected >= 5
    assert brighter.p.all()
    assert not darker.p.any()
    for events in (brighter, darker):
        pixels, counts = np.unique(events.y * 3 + events.x, return_counts=True)
        assert pixels.tolist() == list(range(6))
        assert (counts == expected).all()


def test_a_moving_edge_fires_where_it_passes_with_its_polarity() -> None:
    """A bright bar that walks over the columns: ON in each when it comes, OFF when it leaves."""
    scenes = np.full((9, 1, 4, 8), 3000, dtype=np.uint16)
    for step in range(1, 9):
        scenes[step, :, :, step - 1] = 60000
    events = film(IDEAL, scenes, np.arange(9) * 100)
    for column in range(8):
        of_column = events.x == column
        on, off = of_column & events.p, of_column & ~events.p
        assert column * 100 <= events.t[on].min() <= events.t[on].max() <= (column + 1) * 100
        if column < 7:
            assert (column + 1) * 100 <= events.t[off].min() <= events.t[off].max() <= (column + 2) * 100
            assert on.sum() == off.sum() > 0


def test_event_times_are_interpolated_linearly_in_log_intensity() -> None:
    change = log_change(IDEAL, 5000, 60000)
    events = film(IDEAL, uniform_scenes([5000, 5000, 60000], 1, 1), [0, 400, 10_400])
    ideal = 400 + 10_000 * IDEAL.threshold * np.arange(1, len(events.t) + 1) / change
    np.testing.assert_allclose(events.t, ideal, atol=2)


def test_the_reference_follows_the_events_over_many_samples() -> None:
    """Steps below the threshold add up, and events depend on the log intensity over time, not on its sampling."""
    levels = np.rint((np.geomspace(0.15, 1.05, 61) - 0.1) * 65535).astype(int).tolist()
    fine = film(IDEAL, uniform_scenes(levels, 1, 1), np.arange(61) * 100)
    coarse = film(IDEAL, uniform_scenes(levels[::6], 1, 1), np.arange(11) * 600)
    assert abs(log_change(IDEAL, levels[0], levels[1])) < IDEAL.threshold
    assert len(fine.t) == int(np.log(7) / IDEAL.threshold) == len(coarse.t)
    np.testing.assert_allclose(fine.t, coarse.t, atol=3)


def test_half_the_threshold_gives_twice_the_events() -> None:
    """For intensities that change by many thresholds; in a noisy scene, small thresholds give far more events."""
    levels = [1000, 64000] * 20
    counts = [
        len(film(IDEAL.model_copy(update={"threshold": threshold}), uniform_scenes(levels), np.arange(40) * 1000).t)
        for threshold in (0.1, 0.05)
    ]
    assert 1.95 < counts[1] / counts[0] < 2.1


def test_a_still_scene_without_noise_is_silent() -> None:
    events = film(IDEAL, uniform_scenes([30000] * 5, recordings=2), np.arange(5) * 1000)
    assert len(events.t) == 0
    assert events.offsets.tolist() == [0, 0, 0]


def test_times_are_sorted_and_inside_the_recording() -> None:
    events = film(CameraConfig(noise_hz=50.0), flicker(), np.arange(120) * 777)
    assert len(events) == 3
    for index in range(3):
        t = events.recording(index)["t"]
        assert (np.diff(t) >= 0).all()
        assert 0 <= t[0] <= t[-1] <= 119 * 777


@pytest.mark.parametrize("refractory_us", [1, 700, 5000])
def test_refractory_time_removes_exactly_what_a_plain_loop_removes(refractory_us: int) -> None:
    scenes, times = flicker(), np.arange(120) * 1000
    config = CameraConfig(threshold=0.1, noise_hz=100.0, refractory_us=0)
    free = film(config, scenes, times)
    held = film(config.model_copy(update={"refractory_us": refractory_us}), scenes, times)
    assert len(held.t) < len(free.t)
    for index in range(3):
        last: dict[tuple[int, int], int] = {}
        kept = []
        # Two events of a pixel in the same microsecond: OFF goes first, which is the order in which the camera sorts.
        for event in np.sort(free.recording(index), order=["y", "x", "t", "p"]).tolist():
            x, y, t, _ = event
            if (x, y) not in last or t - last[x, y] >= refractory_us:
                last[x, y] = t
                kept.append(event)
        assert kept == np.sort(held.recording(index), order=["y", "x", "t", "p"]).tolist()


def test_noise_is_a_poisson_process_of_the_given_rate() -> None:
    """Number, variance over recordings, places, times and polarity, each within five standard errors."""
    config = IDEAL.model_copy(update={"noise_hz": 20.0})
    recordings, pixels, seconds = 400, 64, 0.1
    events = film(config, uniform_scenes([20000, 20000], 8, 8, recordings), [0, 99_999])
    mean = 20.0 * seconds * pixels
    counts = np.diff(events.offsets)
    assert abs(counts.mean() - mean) < 5 * np.sqrt(mean / recordings)
    assert abs(counts.var() / mean - 1) < 5 * np.sqrt(2 / recordings)
    total = len(events.t)
    places = np.bincount(events.y.astype(int) * 8 + events.x, minlength=pixels)
    assert abs(((places - total / pixels) ** 2).sum() / (total / pixels) - pixels) < 5 * np.sqrt(2 * pixels)
    assert abs(events.p.mean() - 0.5) < 2.5 / np.sqrt(total)
    assert abs(events.t.mean() / 1e5 - 0.5) < 5 * np.sqrt(1 / 12 / total)
    tenths = np.bincount(events.t // 10_000, minlength=10)
    assert abs(((tenths - total / 10) ** 2).sum() / (total / 10) - 10) < 5 * np.sqrt(20)


def test_mismatch_is_a_fixed_pattern_of_the_sensor() -> None:
    config = IDEAL.model_copy(update={"mismatch": 0.1})
    sensor = EventCamera(config, 100, 100)
    for thresholds in (sensor.on_threshold, sensor.off_threshold):
        relative = thresholds / (0.2 * 65536) - 1
        assert abs(relative.mean()) < 0.005
        assert abs(relative.std() - 0.1) < 0.005
        assert relative.min() >= -0.3001
    assert abs(np.corrcoef(sensor.on_threshold, sensor.off_threshold)[0, 1]) < 0.05
    again = EventCamera(config, 100, 100)
    other = EventCamera(config.model_copy(update={"sensor_seed": 1}), 100, 100)
    assert (sensor.on_threshold == again.on_threshold).all()
    assert (sensor.on_threshold != other.on_threshold).mean() > 0.99


def test_a_recording_is_the_same_alone_and_among_others() -> None:
    scenes, times = flicker(), np.arange(120) * 1000
    together = film(CameraConfig(), scenes, times)
    for index in range(3):
        alone = film(CameraConfig(), scenes[:, index : index + 1], times, first_recording=index)
        assert alone.recording(0).tobytes() == together.recording(index).tobytes()


def test_recordings_of_the_same_scene_differ_by_their_noise_only() -> None:
    scenes = np.repeat(flicker(recordings=1), 2, axis=1)
    times = np.arange(120) * 1000
    quiet = film(CameraConfig(noise_hz=0.0), scenes, times)
    noisy = film(CameraConfig(noise_hz=30.0), scenes, times)
    assert quiet.recording(0).tobytes() == quiet.recording(1).tobytes()
    assert noisy.recording(0).tobytes() != noisy.recording(1).tobytes()


@pytest.mark.parametrize("times", [[1, 2], [0, 0], [0, 2**31]])
def test_times_that_are_no_recording_are_refused(times: list[int]) -> None:
    with pytest.raises(ValueError, match="times_us"):
        film(IDEAL, uniform_scenes([1, 2]), times)


def test_scenes_of_another_shape_or_type_are_refused() -> None:
    camera = EventCamera(IDEAL, 4, 4)
    scenes: list[Any] = [np.zeros((1, 4, 5), np.uint16), np.zeros((1, 4, 4), np.uint8)]
    for scene in scenes:
        with pytest.raises(ValueError, match="uint16"):
            camera.record(itertools.repeat(scene), np.array([0, 1]), np.array([0]))
