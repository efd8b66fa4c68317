"""Recordings cut into windows: what each holds, and on which side of a split it comes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gradspike.data.events.aedat2 import aedat2_bytes
from gradspike.data.events.frames import to_frames
from gradspike.data.events.listing import seconds
from gradspike.data.events.recording import Recording
from gradspike.data.source import UNUSED
from gradspike.errors import UserError
from helpers import event_samples as made
from helpers.event_sources import SESSIONS, load, split_of, write_sessions


def test_windows_hold_their_events_and_say_where_they_begin(tmp_path: Path) -> None:
    written = write_sessions(tmp_path / "event_folder")
    samples = load("event_folder", tmp_path, **SESSIONS, window_ms=200, stride_ms=100, bins="equal_time")
    of_one = [name for name in samples.names if name.startswith("session_b/Caixa")]
    assert of_one == [f"session_b/Caixa.aedat@0.{tenth}s" for tenth in range(8)], "the last one is not full"
    assert samples.class_names == ("Caixa", "Caneca")
    for index, name in enumerate(samples.names):
        path, _, begin = name.partition("@")
        start = 1000 + round(float(begin[:-1]) * 1e6)
        events = written[path]
        inside = (events.t >= start) & (events.t < start + 200_000)
        of_window = Recording(*(getattr(events, field)[inside] for field in "txyp"))
        frames = to_frames(of_window, (128, 128), 4, "equal_time", (start, start + 200_000), image_size=(16, 16))
        assert (samples.inputs[index] == frames).all()


def test_a_single_training_recording_ends_in_validation_with_a_gap(tmp_path: Path) -> None:
    """Windows overlap: those that share events with a held-out window are in no split."""
    write_sessions(tmp_path / "event_folder")
    samples = load("event_folder", tmp_path, **SESSIONS, window_ms=200, stride_ms=100, val_fraction=0.25)
    for name in ("Caixa", "Caneca"):
        of_one = [i for i in range(len(samples.names)) if samples.names[i].startswith(f"session_a/{name}")]
        assert samples.splits[of_one].tolist() == [0, 0, 0, 0, 0, UNUSED, 1, 1]
    apart = load("event_folder", tmp_path, **SESSIONS, window_ms=100, val_fraction=0.25)
    assert [apart.splits[i] for i in range(9)] == [0] * 7 + [1, 1]
    everything = load("event_folder", tmp_path, **SESSIONS, window_ms=200, stride_ms=100, val_fraction=0.0)
    assert not len(everything.indices("val"))


def test_windows_of_one_recording_stay_together(tmp_path: Path) -> None:
    for split, count in (("train", 5), ("test", 1)):
        for number in range(count):
            events = made.recording(number, count=300, size=128, duration_us=400_000)
            made.write(tmp_path / f"event_folder/{split}/mug/deep/{number}.aedat", aedat2_bytes(events))
    samples = load("event_folder", tmp_path, image_size=16, classes=1, window_ms=100, val_fraction=0.4)
    assert len(samples.names) == 24
    splits = {name.partition("@")[0]: set() for name in samples.names}
    for name, split in split_of(samples).items():
        splits[name.partition("@")[0]].add(split)
    assert all(len(of) == 1 for of in splits.values())
    assert sum(of == {"val"} for of in splits.values()) == 2


def test_a_sensor_that_is_not_square_is_scaled_by_its_axes(tmp_path: Path) -> None:
    events = made.recording(0, count=400, size=200)
    place = Recording(events.t, events.x + 100, events.y, events.p)
    for split in ("train", "test"):
        made.write(tmp_path / f"event_folder/{split}/a/0.npz", made.npz_bytes(place))
    options: dict[str, Any] = {"image_size": 20, "classes": 1}
    samples = load("event_folder", tmp_path, sensor_size=[300, 200], **options)
    assert (samples.inputs[0] == to_frames(place, (300, 200), 4, "equal_count", image_size=(20, 20))).all()
    with pytest.raises(UserError, match=r"0.npz: .* outside the sensor of 200x200 pixels"):
        load("event_folder", tmp_path, sensor_size=200, **options)


@pytest.mark.parametrize(
    ("microseconds", "text"), [(0, "0.0"), (500_000, "0.5"), (12_250_000, "12.25"), (1, "0.000001"), (3_000_000, "3.0")]
)
def test_seconds_have_the_decimals_they_need(microseconds: int, text: str) -> None:
    assert seconds(microseconds) == text
