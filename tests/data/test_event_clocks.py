"""Clocks of event recordings: jumps, gaps, jitter, resets and wraps are refused, reported or counted."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gradspike.data.events.aedat2 import aedat2_bytes
from gradspike.data.events.clock import in_order, jump
from gradspike.data.events.frames import to_frames
from gradspike.data.events.recording import BadRecordingError, Recording
from gradspike.data.events.recordings import read_recording
from gradspike.errors import UserError
from helpers import event_samples as made
from helpers.event_values import facts, folder_of, load, over_sensor


def with_jump(jump_us: int, before: int = 40, count: int = 5000, duration_us: int = 300_000) -> Recording:
    """One second of events, the first few of them before the clock is set."""
    events = over_sensor(34, 34, count=count, duration_us=duration_us)
    t = events.t.copy()
    t[before:] += jump_us
    return replace(events, t=t)


@pytest.mark.parametrize("jump_us", [400_000, 3_600_000_000, 1_764_000_000_000_000])
@pytest.mark.parametrize("options", [{"bins": "equal_time"}, {"window_ms": 50}, {"window_ms": 50, "stride_ms": 10}])
def test_a_jump_of_the_clock_is_refused_or_kept(tmp_path: Path, jump_us: int, options: dict[str, Any]) -> None:
    folder_of(tmp_path, ".npz", made.npz_bytes(with_jump(jump_us)))
    options |= {"sensor_size": 34}
    with pytest.raises(UserError, match=r"0.npz: its clock seems to jump: .* after event 39, .*dataset.on_gap=keep"):
        load(tmp_path, **options)
    source = load(tmp_path, on_gap="keep", **options)
    samples = source.load()
    assert facts(source)["recordings_with_jumps"] == [
        str(tmp_path / f"event_folder/{split}/mug/0.npz") for split in ("test", "train")
    ]
    counted = np.asarray(samples.inputs).sum(axis=(1, 2, 3, 4), dtype=np.int64)
    assert (counted > 0).all()
    if "window_ms" not in options:
        assert counted.tolist() == [5000, 5000]


def test_a_jump_that_changes_nothing_is_only_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder_of(tmp_path, ".npz", made.npz_bytes(with_jump(10**9)))
    with caplog.at_level(logging.WARNING, "gradspike"):
        source = load(tmp_path, sensor_size=34, bins="equal_count")
    assert np.asarray(source.load().inputs).sum() == 10_000
    assert "gap longer than the rest of the recording (a clock jump?) in 2 recordings" in " ".join(caplog.messages)


def test_several_jumps_are_found_and_busy_or_sparse_recordings_are_not() -> None:
    events = over_sensor(34, 34)
    t = events.t.copy()
    t[1000:] += 10**9
    t[2000:] += 10**9
    found = jump(replace(events, t=t))
    assert found is not None
    assert "no event for 1,000.0 s" in found
    assert jump(events) is None
    assert jump(replace(events[:9], t=np.array([0, 1, 2, 3, 4, 5, 6, 7, 10**6]))) is None
    assert jump(replace(events[:40], t=np.arange(40) * 1000)) is None
    for seed in range(50):
        assert jump(over_sensor(34, 34, count=24, seed=seed)) is None
        assert jump(over_sensor(34, 34, count=8, seed=seed)) is None


def test_windows_across_a_gap_are_those_of_a_slow_search(tmp_path: Path) -> None:
    """Every window with an event, at the same positions as without the shortcut."""
    from gradspike.data.events.clips import _windows_with_events

    rng = np.random.default_rng(0)
    for window, stride in ((50, 50), (50, 20), (20, 50), (7, 3)):
        t = np.sort(
            np.concatenate([rng.integers(0, 400, 30), rng.integers(3000, 3300, 30), rng.integers(9000, 9100, 9)])
        )
        t -= t[0]
        count = int((t[-1] + 1 - window) // stride + 1)
        found = [k for first, stop in _windows_with_events(t, count, window, stride) for k in range(first, stop)]
        holding = [k for k in range(count) if ((t >= k * stride) & (t < k * stride + window)).any()]
        assert sorted(set(found)) == found
        assert set(holding) <= set(found)
        assert len(found) < count / 2


def test_more_windows_than_memory_takes_are_refused(tmp_path: Path) -> None:
    events = over_sensor(34, 34, count=5000, duration_us=3_000_000_000)
    folder_of(tmp_path, ".npz", made.npz_bytes(events))
    with pytest.raises(UserError, match=r"0.npz: gives [\d,]+ windows, .* TB of frames.*window_ms or stride_ms"):
        load(tmp_path, sensor_size=34, window_ms=1000, stride_ms=0.01, image_size=64)


def test_jitter_is_sorted_when_asked_for_and_counted(tmp_path: Path) -> None:
    events = over_sensor(34, 34, count=500)
    order = np.arange(500)
    order[100:103] = [102, 100, 101]
    shuffled = events[order]
    folder_of(tmp_path, ".npz", made.npz_bytes(shuffled))
    with pytest.raises(UserError, match=r"time goes backwards .* if this is jitter, add dataset.on_disorder=sort"):
        load(tmp_path, sensor_size=34)
    source = load(tmp_path, sensor_size=34, on_disorder="sort")
    assert (source.load().inputs[0] == to_frames(events, (34, 34), 10, "equal_count", image_size=(16, 16))).all()
    found = facts(source)
    assert found["disordered"] == 4
    assert found["recordings_out_of_order"] == 2
    with pytest.raises(UserError, match="time goes backwards"):
        load(tmp_path, sensor_size=34)


def test_a_reset_of_the_clock_is_not_sorted() -> None:
    events = over_sensor(34, 34, count=500)
    t = events.t.copy()
    t[300:] -= 40_000
    with pytest.raises(BadRecordingError, match=r"backwards by .* us at event 300, too much for jitter"):
        in_order(replace(events, t=t), "sort")
    with pytest.raises(BadRecordingError, match="the clock was reset: split the file there"):
        in_order(replace(events, t=t), "error")


def test_a_short_clock_that_wrapped_is_no_jitter() -> None:
    events = over_sensor(34, 34, count=500)
    wrapped = replace(events, t=events.t % 256)
    with pytest.raises(BadRecordingError, match="too much for jitter"):
        in_order(wrapped, "sort")
    with pytest.raises(BadRecordingError, match="time goes backwards") as told:
        in_order(wrapped, "error")
    assert "on_disorder=sort" not in str(told.value)


@pytest.mark.parametrize("unit_us", [1_000_000, 1000])
def test_times_too_coarse_for_equal_frames_are_refused(tmp_path: Path, unit_us: int) -> None:
    events = made.recording(1)
    coarse = made.npz_bytes(replace(events, t=events.t // unit_us))
    folder_of(tmp_path, ".npz", coarse)
    with pytest.raises(UserError, match=r"60 events within \d microseconds? cannot be divided into 10 frames"):
        load(tmp_path, sensor_size=34, bins="equal_time")


@pytest.mark.parametrize("bits", [31, 32])
def test_a_wrapped_clock_in_columns_is_named(bits: int) -> None:
    events = over_sensor(34, 34, count=500)
    wrapped = replace(events, t=(events.t + 2**bits - 50_000) % 2**bits)
    read = read_recording("r.npz", made.npz_bytes(wrapped))
    with pytest.raises(BadRecordingError, match=f"a {bits}-bit clock that wrapped"):
        read.check(34, 34)


def test_timestamps_of_aedat2_and_dat_go_on_where_they_wrap_at_2_to_the_31_and_32() -> None:
    for start in (2**31 - 50_000, 2**32 - 50_000):
        events = over_sensor(128, 128, count=500)
        events = replace(events, t=events.t + start)
        read = read_recording("r.aedat", aedat2_bytes(events))
        assert (read.t == events.t).all()
        wrapped = made.dat_bytes(replace(events, t=events.t % 2**32))
        assert (read_recording("r.dat", wrapped).t == events.t).all()
        read.check(128, 128)


def test_a_span_that_overflows_is_refused() -> None:
    events = replace(over_sensor(34, 34, count=2), t=np.array([0, 2**62]))
    with pytest.raises(ValueError, match="are too long to divide into 10 frames"):
        to_frames(events, (34, 34), 10)
