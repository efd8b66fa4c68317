"""digits_events: reproducible bytes, every event in a frame, and recognisable digits."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from gradspike.data.camera.camera import EventCamera
from gradspike.data.events.frames import to_frames
from gradspike.data.events.table import FIELDS, TONIC_DTYPE, Events
from gradspike.data.options.events import DigitsEventsConfig
from gradspike.data.prepared.stored import Prepared
from gradspike.data.sets.digits import read_digits
from gradspike.data.sets.digits_events import DURATION_US, SIZE, DigitsEvents, record_digits, saccade_path
from gradspike.data.source import Samples

CHECKSUM = "2cb125aa810b8a669bba5ff74f9a3fdbea91130537c283c4aa4ff5d500c0f10b"
"""SHA-256 of all events of the default camera: a change needs a new VERSION and new results."""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> DigitsEvents:
    return DigitsEvents(DigitsEventsConfig(), 6, tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def recorded(source: DigitsEvents) -> Prepared:
    return source.load_events()


@pytest.fixture(scope="module")
def frames(source: DigitsEvents) -> Samples:
    return source.load()


def as_events(recorded: Prepared) -> Events:
    return Events(**{field: recorded.arrays[field] for field in FIELDS})


def random_events(count: int, end: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    events = np.empty(count, dtype=TONIC_DTYPE)
    events["t"] = np.sort(rng.integers(0, end, count))
    events["x"], events["y"], events["p"] = (
        rng.integers(0, 7, count),
        rng.integers(0, 5, count),
        rng.integers(0, 2, count),
    )
    return events


def test_the_events_are_the_ones_results_were_measured_on(recorded: Prepared) -> None:
    digest = hashlib.sha256()
    for field in FIELDS:
        digest.update(np.ascontiguousarray(recorded.arrays[field]).tobytes())
    assert digest.hexdigest() == CHECKSUM


def test_a_second_generation_has_the_same_bytes(recorded: Prepared) -> None:
    images, _, _ = read_digits()
    again = record_digits(images[:200], EventCamera(DigitsEventsConfig().camera, SIZE, SIZE))
    stored = as_events(recorded)
    for field in ("t", "x", "y", "p"):
        assert getattr(again, field).tobytes() == getattr(stored, field)[: stored.offsets[200]].tobytes()
    assert (again.offsets == stored.offsets[:201]).all()


def test_every_recording_is_sorted_and_lies_inside_sensor_and_time(recorded: Prepared) -> None:
    events = as_events(recorded)
    assert len(events) == 1797
    starts = np.zeros(len(events.t), dtype=bool)
    starts[events.offsets[:-1]] = True
    assert ((np.diff(events.t) >= 0) | starts[1:]).all()
    assert events.t.min() >= 0
    assert events.t.max() < DURATION_US
    for place in (events.x, events.y):
        assert place.min() == 0
        assert place.max() == SIZE - 1


def test_the_picture_never_leaves_the_sensor() -> None:
    """8 pixels at 9/4 are 18, so 3 pixels of movement either way fit into 24."""
    path = saccade_path()
    assert np.abs(path).max() <= 3 * 256
    assert (path[0] == path[-1]).all()
    assert np.abs(np.diff(path, axis=0)).max() < 128


def test_each_frame_set_holds_every_event(recorded: Prepared, frames: Samples) -> None:
    sums = np.asarray(frames.inputs).sum(axis=(1, 2, 3, 4), dtype=np.int64)
    assert (sums == np.diff(recorded.arrays["offsets"])).all()
    assert frames.inputs.shape == (1797, 6, 2, SIZE, SIZE)
    assert frames.inputs.dtype == np.uint8


def test_labels_and_split_are_those_of_the_pictures(frames: Samples) -> None:
    _, labels, splits = read_digits()
    assert (frames.labels == labels).all()
    assert (frames.splits == splits).all()


@pytest.mark.parametrize("bins", ["equal_time", "equal_count"])
@pytest.mark.parametrize("time_steps", [1, 3, 7, 64])
def test_frames_count_each_event_at_its_place(bins: str, time_steps: int) -> None:
    events = random_events(1000, 12_345)
    expected = np.zeros((time_steps, 2, 5, 7), dtype=np.int64)
    for rank, (x, y, t, p) in enumerate(events.tolist()):
        step = t * time_steps // 12_345 if bins == "equal_time" else rank * time_steps // 1000
        expected[step, int(p), y, x] += 1
    frames = to_frames(events, (7, 5), time_steps, bins, (0, 12_345))  # type: ignore[arg-type]
    assert (frames == expected).all()


def test_without_a_span_the_last_event_is_still_counted() -> None:
    """tonic's own equal time bins lose it, which is why it is not used."""
    from tonic.transforms import ToFrame

    events = random_events(100, 1001)
    assert to_frames(events, (7, 5), 4).sum() == 100
    assert ToFrame(sensor_size=(7, 5, 2), n_time_bins=4)(events).sum() < 100


def test_equal_count_frames_differ_by_one_event_at_most() -> None:
    per_frame = to_frames(random_events(1003, 5000), (7, 5), 8, "equal_count").sum(axis=(1, 2, 3), dtype=int)
    assert per_frame.max() - per_frame.min() <= 1


def test_fewer_events_than_frames_and_no_events_at_all() -> None:
    assert to_frames(random_events(3, 100), (7, 5), 8, "equal_count").sum() == 3
    empty = to_frames(random_events(0, 100), (7, 5), 8)
    assert empty.shape == (8, 2, 5, 7)
    assert not empty.any()


@pytest.mark.parametrize(("count", "dtype"), [(255, np.uint8), (256, np.int16), (32_767, np.int16)])
def test_counts_above_255_take_a_wider_type(count: int, dtype: type) -> None:
    events = random_events(count, 1000)
    events["x"], events["y"], events["p"] = 0, 0, True
    frames = to_frames(events, (7, 5), 1)
    assert frames.dtype == dtype
    assert frames[0, 1, 0, 0] == frames.sum() == count
    assert to_frames(events, (7, 5), 1, binning="binary").sum() == 1


def test_more_than_can_be_counted_is_refused() -> None:
    events = random_events(32_768, 1000)
    events["x"], events["y"], events["p"] = 0, 0, True
    with pytest.raises(ValueError, match=r"32,768 events in one frame"):
        to_frames(events, (7, 5), 1)
    assert to_frames(events, (7, 5), 1, binning="binary").sum() == 1


@pytest.mark.parametrize("size", [(3, 2), (7, 5), (5, 5), (20, 11)])
def test_resizing_moves_each_event_to_the_pixel_that_covers_its_place(size: tuple[int, int]) -> None:
    events = random_events(500, 1000)
    expected = np.zeros((4, 2, size[1], size[0]), dtype=np.int64)
    for rank, (x, y, _, p) in enumerate(events.tolist()):
        expected[rank * 4 // 500, int(p), int(y * size[1] / 5), int(x * size[0] / 7)] += 1
    assert (to_frames(events, (7, 5), 4, "equal_count", image_size=size) == expected).all()


def test_events_outside_sensor_or_span_are_refused() -> None:
    events = random_events(100, 1000)
    with pytest.raises(ValueError, match="sensor"):
        to_frames(events, (6, 5), 2)
    with pytest.raises(ValueError, match="recording"):
        to_frames(events, (7, 5), 2, "equal_time", (0, 500))


def test_other_time_steps_and_cameras_are_other_sets(source: DigitsEvents, frames: Samples) -> None:
    before = {path.name for path in (source.data_dir / "prepared").iterdir() if not path.name.startswith(".")}
    more = DigitsEvents(DigitsEventsConfig(bins="equal_count"), 2, source.data_dir).load()
    assert more.inputs.shape[1] == 2
    after = {path.name for path in (source.data_dir / "prepared").iterdir() if not path.name.startswith(".")}
    assert len(after - before) == 1, "the events were recorded again"
    other = DigitsEventsConfig.model_validate({"camera": {"threshold": 0.5}})
    assert DigitsEvents(other, 6, source.data_dir)._events_key() != source._events_key()


def test_opening_takes_milliseconds(source: DigitsEvents, frames: Samples) -> None:
    import time

    start = time.perf_counter()
    source.load()
    assert time.perf_counter() - start < 0.1


def test_a_linear_classifier_reads_the_digits(frames: Samples) -> None:
    from sklearn.linear_model import RidgeClassifier

    pixels = np.asarray(frames.inputs).sum(axis=1, dtype=np.float64).reshape(1797, -1)
    train, test = frames.indices("train"), frames.indices("test")
    classifier = RidgeClassifier(alpha=100.0).fit(pixels[train], frames.labels[train])
    assert classifier.score(pixels[test], frames.labels[test]) > 0.85
