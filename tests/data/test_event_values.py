"""Invalid values: addresses, columns, times and clocks are refused or counted, never dropped or cast."""

from __future__ import annotations

import io
import json
import logging
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gradspike.data.events.aedat2 import aedat2_bytes, read_aedat2
from gradspike.data.events.chips import CHIPS, chip_named
from gradspike.data.events.clock import in_order, jump
from gradspike.data.events.frames import to_frames
from gradspike.data.events.ready_frames import read_ready_frames
from gradspike.data.events.recording import BadRecordingError, Recording, percent
from gradspike.data.events.recordings import read_recording
from gradspike.data.events.source import EventSource
from gradspike.data.registry import DATASETS
from gradspike.data.sets.dvs_gesture import read_gesture
from gradspike.errors import UserError
from helpers import event_samples as made


def load(data_dir: Path, name: str = "event_folder", time_steps: int = 10, **options: Any) -> EventSource[Any]:
    if name == "event_folder":
        options = {"image_size": 16, "classes": 1, **options}
    source: EventSource[Any] = DATASETS.implementation(name)(
        DATASETS.config_class(name)(name=name, **options), time_steps, data_dir
    )
    source.prepare_workers = 1
    source.load()
    return source


def facts(source: EventSource[Any]) -> dict[str, Any]:
    meta = json.loads((source.load_frames().folder / "meta.json").read_text())
    decoded: dict[str, Any] = meta["facts"]["decoded"]
    return decoded


def folder_of(tmp_path: Path, name: str, *contents: bytes) -> Path:
    """An event folder of one class with the same recordings to train and to test."""
    for split in ("train", "test"):
        for number, content in enumerate(contents):
            made.write(tmp_path / f"event_folder/{split}/mug/{number}{name}", content)
    return tmp_path


def over_sensor(width: int, height: int, count: int = 3000, seed: int = 0, duration_us: int = 100_000) -> Recording:
    """Random events over a whole sensor."""
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, width, count), rng.integers(0, height, count)
    t = np.sort(rng.integers(0, duration_us, count))
    return Recording(t, x.astype(np.int16), y.astype(np.int16), rng.random(count) < 0.5)


def aedat2(address: np.ndarray, t: np.ndarray, chip: str | None = None) -> bytes:
    header = b"#!AER-DAT2.0\r\n# Timestamps tick is 1 us\r\n"
    if chip is not None:
        header += f"# AEChip: {chip}\r\n".encode()
    words = np.empty((len(address), 2), dtype=">u4")
    words[:, 0], words[:, 1] = address, t & 0xFFFFFFFF
    return header + words.tobytes()


def davis_address(events: Recording, width: int, height: int) -> np.ndarray:
    """By iniVation's description: bits 22-30 y, 12-21 x, 11 polarity, both axes from the other end."""
    x, y = (width - 1 - events.x).astype(np.uint32), (height - 1 - events.y).astype(np.uint32)
    return y << 22 | x << 12 | events.p.astype(np.uint32) << 11


def dvs640_address(events: Recording) -> np.ndarray:
    """As jAER's DVS640 and v2e have it: bits 11-20 y, 1-10 x, 0 polarity."""
    x, y = (639 - events.x).astype(np.uint32), (479 - events.y).astype(np.uint32)
    return y << 11 | x << 1 | events.p.astype(np.uint32)


def same(one: Recording, two: Recording) -> bool:
    return all((getattr(one, field) == getattr(two, field)).all() for field in "txyp")


# AEDAT 2.0 of other sensors


@pytest.mark.parametrize(
    ("chip", "size"),
    [("davis240", (240, 180)), ("davis346", (346, 260)), ("davis640", (640, 480)), ("davis128", (128, 128))],
)
def test_davis_addresses_are_decoded_when_header_or_user_says_so(chip: str, size: tuple[int, int]) -> None:
    events = over_sensor(*size)
    address = davis_address(events, *size)
    read = read_recording("r.aedat", aedat2(address, events.t), chip)
    assert same(read, events)
    assert (read.sensor, read.left_out) == (size, 0)
    named = read_recording("r.aedat", aedat2(address, events.t, f"eu.seebetter.ini.chips.davis.{chip.upper()}C"))
    assert same(named, events)


def test_a_davis_decodes_as_tonic_does(tmp_path: Path) -> None:
    from tonic.io import read_davis_346

    events = over_sensor(346, 260)
    data = aedat2(davis_address(events, 346, 260), events.t)
    (tmp_path / "r.aedat").write_bytes(data)
    _, _, theirs = read_davis_346(str(tmp_path / "r.aedat"))
    ours = read_aedat2(data, "davis346")
    assert all((theirs[field] == getattr(ours, field)).all() for field in "txyp")


@pytest.mark.parametrize(
    ("events", "address", "advice"),
    [
        (over_sensor(346, 260), lambda e: davis_address(e, 346, 260), r"dataset.chip=davis346 \(346x260\)"),
        (over_sensor(240, 180), lambda e: davis_address(e, 240, 180), r"dataset.chip=davis240 \(240x180\)"),
        (over_sensor(640, 480), dvs640_address, r"dataset.chip=dvs640 \(640x480\)"),
        (over_sensor(1280, 720), lambda e: e.y.astype(np.uint32) << 16 | e.x, "They match no known chip"),
    ],
)
def test_without_a_chip_line_the_addresses_of_another_sensor_are_refused(
    tmp_path: Path, events: Recording, address: Callable[[Recording], np.ndarray], advice: str
) -> None:
    """Of these events, those in the first rows are also valid for a DVS128."""
    data = aedat2(address(events), events.t)
    with pytest.raises(BadRecordingError, match=f"header names no sensor, and .* %.* invalid for a DVS128. .*{advice}"):
        read_recording("r.aedat", data)
    with pytest.raises(UserError, match=r"0\.aedat: its header names no sensor"):
        load(folder_of(tmp_path, ".aedat", data))


def test_the_sensor_and_its_size_are_typed_and_used(tmp_path: Path) -> None:
    events = over_sensor(346, 260)
    data = aedat2(davis_address(events, 346, 260), events.t)
    folder_of(tmp_path, ".aedat", data)
    with pytest.raises(UserError, match=r"outside the sensor of 128x128 .*its header gives a sensor of 346x260"):
        load(tmp_path, chip="davis346")
    source = load(tmp_path, chip="davis346", sensor_size=[346, 260])
    expected = to_frames(events, (346, 260), 10, "equal_count", image_size=(16, 16))
    assert (source.load().inputs[0] == expected).all()
    assert facts(source)["extent"] == [346, 260]
    with pytest.raises(UserError, match=r"events .*would be left out: .* at addresses invalid for a davis240"):
        load(tmp_path, chip="davis240", sensor_size=[240, 180])


def test_header_and_user_must_agree() -> None:
    events = over_sensor(128, 128)
    with pytest.raises(BadRecordingError, match="its header names the sensor DVS128, but a davis346 is expected"):
        read_recording("r.aedat", aedat2_bytes(events), "davis346")
    with pytest.raises(BadRecordingError, match=r"unknown sensor 'CochleaAMS1c'.*Allowed: .*davis240.*dataset.chip"):
        read_recording("r.aedat", aedat2(np.zeros(3), events.t[:3], "ch.unizh.ini.jaer.chip.cochlea.CochleaAMS1c"))


@pytest.mark.parametrize(
    ("name", "chip"),
    [
        ("ch.unizh.ini.jaer.chip.retina.DVS128", "dvs128"),
        ("ch.unizh.ini.caviar.chip.retina.Tmpdiff128", "dvs128"),
        ("ch.unizh.ini.caviar.chip.retina.DVS128", "dvs128"),
        ("DVS128", "dvs128"),
        ("eu.seebetter.ini.chips.sbret10.SBret10", "davis240"),
        ("eu.seebetter.ini.chips.DAViS.DAViS240", "davis240"),
        ("eu.seebetter.ini.chips.davis.DAVIS240BaseCamera", "davis240"),
        ("eu.seebetter.ini.chips.DAViS346", "davis346"),
        ("eu.seebetter.ini.chips.davis.Davis346BColor", "davis346"),
        ("DAVI346", "davis346"),
        ("eu.seebetter.ini.chips.davis.Davis208PixelParade", "davis208"),
        ("eu.seebetter.ini.chips.davis.Davis640", "davis640"),
        ("ch.unizh.ini.jaer.chip.retina.DVS640", "dvs640"),
        ("ch.unizh.ini.jaer.chip.retina.DVS1280x720SD", None),
        ("ch.unizh.ini.jaer.chip.retina.DVS128andCochleaAMS1b", None),
        ("ch.unizh.ini.jaer.chip.retina.Tmpdiff64", None),
        ("uk.ac.imperial.vsbe.gdvs.DAVIS3460", None),
    ],
)
def test_names_that_jaer_has_given_its_sensors(name: str, chip: str | None) -> None:
    assert chip_named(name) == chip
    if chip is not None:
        size = CHIPS[chip].width, CHIPS[chip].height
        events = over_sensor(*size, count=50)
        address = {"dvs128": None, "dvs640": dvs640_address(events)}.get(chip, davis_address(events, *size))
        if address is None:
            address = np.frombuffer(aedat2_bytes(events)[-8 * 50 :], dtype=">u4")[::2]
        assert same(read_recording("r.aedat", aedat2(address, events.t, name)), events)


def test_frames_and_imu_of_a_davis_are_no_events_and_pulses_are_left_out() -> None:
    events = over_sensor(240, 180, count=1000)
    address = np.concatenate([davis_address(events, 240, 180), np.full(5000, 0x80000C01), np.full(30, 1 << 10)])
    read = read_aedat2(aedat2(address, np.r_[events.t, np.zeros(5030, np.int64)]), "davis240")
    assert same(read, events)
    assert (read.special, read.left_out) == (5030, 30)
    assert read.why == "30 pulses at the synchronisation or external input"


def test_a_davis_event_that_starts_like_a_header_line() -> None:
    """0x23 is '#': row 140 from below, and 10 is the end of a line."""
    address = np.array([0x23 << 24 | 1 << 12, 0x23000000 | 10 << 12 | 1 << 11], dtype=np.uint32)
    read = read_aedat2(aedat2(address, np.array([10, 11])), "davis240")
    assert len(read) == 2
    assert read.y.tolist() == [179 - (0x23 << 2)] * 2


def test_the_share_left_out_is_reported_and_limited(tmp_path: Path) -> None:
    events = over_sensor(128, 128, count=2000)
    address = np.frombuffer(aedat2_bytes(events)[-8 * 2000 :], dtype=">u4")[::2].copy()
    few, many = address.copy(), address.copy()
    few[100:140] |= 0x8000
    few[0] |= 1 << 20
    many[100:400] |= 0x8000
    chip = "ch.unizh.ini.jaer.chip.retina.DVS128"
    source = load(folder_of(tmp_path / "few", ".aedat", aedat2(few, events.t, chip)))
    found = facts(source)
    assert (found["events"], found["left_out"]) == (2 * 1959, 2 * 41)
    assert found["left_out_share"] == pytest.approx(41 / 2000)
    folder_of(tmp_path / "many", ".aedat", aedat2(many, events.t, chip))
    with pytest.raises(UserError, match=r"300 of its 2,000 events \(15 %\) .* left out: 300 pulses .*max_left_out"):
        load(tmp_path / "many")
    assert facts(load(tmp_path / "many", max_left_out=0.2))["left_out"] == 600
    with pytest.raises(BadRecordingError, match="header names no sensor, and 15 % of its 2,000 addresses"):
        read_recording("r.aedat", aedat2(many, events.t))


def test_invalid_events_of_aedat3_count_as_left_out() -> None:
    events = made.recording(1, count=8)
    read = read_recording("r.aedat", made.aedat3_bytes(events))
    assert (read.special, read.left_out, read.why) == (2, 1, "1 marked as invalid")
    with pytest.raises(BadRecordingError, match=r"1 of its 9 events \(11.1 %\)"):
        read.check(128, 128)


# Extent


@pytest.mark.parametrize("ending", [".bin", ".npz", ".npy"])
def test_recordings_of_a_small_sensor_do_not_lie_in_a_corner(tmp_path: Path, ending: str) -> None:
    """sensor_size=128 is the default; recordings of N-MNIST have 34x34 pixels."""
    events = [over_sensor(34, 34, seed=seed) for seed in range(3)]
    write = {".bin": made.bin_bytes, ".npz": made.npz_bytes, ".npy": lambda e: made.npy_bytes(made.structured(e))}
    folder_of(tmp_path, ending, *(write[ending](of) for of in events))
    with pytest.raises(
        UserError, match=r"columns 0 to 33 and rows 0 to 33 of the sensor's 128x128 .*Set dataset.sensor_size=34\."
    ):
        load(tmp_path)
    assert not [path for path in (tmp_path / "prepared").iterdir() if path.is_dir()], "nothing half-made stays behind"
    source = load(tmp_path, sensor_size=34)
    assert facts(source)["extent"] == [34, 34]


@pytest.mark.parametrize(
    ("data", "sensor", "told"),
    [
        ((240, 180), (640, 480), r"sensor_size=\[240,180\]"),
        ((340, 250), (640, 480), r"sensor_size=\[346,260\]"),
        ((128, 128), (346, 260), r"sensor_size=128"),
        ((300, 100), (346, 260), r"sensor_size=\[300,100\]"),
        ((88, 77), (128, 128), r"sensor_size=\[88,77\]"),
        ((120, 70), (128, 128), None),
        ((340, 255), (346, 260), None),
    ],
)
def test_the_extent_is_compared_with_the_sensor(
    tmp_path: Path, data: tuple[int, int], sensor: tuple[int, int], told: str | None
) -> None:
    folder_of(tmp_path, ".npz", *(made.npz_bytes(over_sensor(*data, seed=seed)) for seed in range(2)))
    if told is None:
        load(tmp_path, sensor_size=sensor)
        return
    with pytest.raises(UserError, match=told):
        load(tmp_path, sensor_size=sensor)


def test_data_sets_with_a_fixed_sensor_compare_it_too(tmp_path: Path) -> None:
    for number in range(4):
        events = over_sensor(48, 48, seed=number)
        made.write(tmp_path / f"CIFAR10DVS/airplane/cifar10_airplane_{number}.npz", made.npz_bytes(events))
    with pytest.raises(UserError, match=r"recordings are not from CIFAR10-DVS\..*event_folder dataset.sensor_size=48"):
        load(tmp_path, "cifar10dvs", classes=1, image_size=16, folds=2)


def test_a_header_that_states_the_size_is_believed(tmp_path: Path) -> None:
    """A DVS128 recording of a small object."""
    folder_of(tmp_path, ".aedat", *(aedat2_bytes(over_sensor(34, 34, seed=seed)) for seed in range(2)))
    assert facts(load(tmp_path))["extent"] == [34, 34]
    with pytest.raises(
        UserError, match=r"its header gives a sensor of 128x128 pixels, smaller than the expected 346x260"
    ):
        load(tmp_path, sensor_size=[346, 260])


def test_dat_and_aedat4_headers_state_the_sensor() -> None:
    events = over_sensor(304, 240)
    data = made.dat_bytes(events).replace(b"% Version 2\n", b"% Version 2\n% Height 240\n% Width 304\n")
    assert read_recording("r.dat", data).sensor == (304, 240)
    assert read_recording("r.dat", made.dat_bytes(events)).sensor is None
    assert read_recording("r.aedat4", made.aedat4_bytes(over_sensor(128, 128, count=60))).sensor == (128, 128)


# Columns


def columns(**changed: Any) -> bytes:
    events = made.recording(1, count=30)
    file = io.BytesIO()
    np.savez(file, **({"t": events.t, "x": events.x, "y": events.y, "p": events.p} | changed))
    return file.getvalue()


GOOD = made.recording(1, count=30)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"t": GOOD.t - 2000}, r"column t contains negative times \(first: -1,000\): 32-bit times that wrapped"),
        ({"t": (GOOD.t + 2**31 - 1500).astype(np.uint32).view(np.int32)}, "negative times"),
        ({"t": GOOD.t.astype(np.uint64) + np.uint64(2**63)}, r"contains .*, more than uint64 represents exactly"),
        ({"t": GOOD.t * 1e15}, "more than float64 represents exactly"),
        ({"t": np.where(np.arange(30) == 3, np.nan, GOOD.t)}, "column t contains NaN or infinity in 1 value"),
        ({"t": np.where(np.arange(30) == 3, np.inf, GOOD.t)}, "column t contains NaN or infinity in 1 value"),
        ({"t": GOOD.t / 1e6}, "fractional numbers; times are whole microseconds"),
        ({"t": GOOD.t.astype("datetime64[us]")}, "not numbers"),
        ({"t": GOOD.t > 1500}, "column t has type bool, not numbers"),
        ({"x": GOOD.x.astype(np.int32) - 40}, r"column x contains -\d+, but pixels count from 0"),
        ({"y": GOOD.y.astype(np.int64) + 2**16}, "column y contains .*, larger than any sensor"),
        ({"y": GOOD.y + 0.5}, "column y contains fractional numbers"),
        ({"x": np.where(GOOD.x > 30, np.nan, GOOD.x)}, "column x contains NaN"),
        ({"p": np.where(GOOD.p, 1, 255).astype(np.uint8)}, "column p contains values other than 0 and 1"),
        ({"p": np.where(GOOD.p, 1.0, np.nan)}, "column p contains NaN"),
        ({"p": np.where(GOOD.p, 2, 1)}, "column p contains values other"),
        ({"p": np.arange(30) % 3 - 1}, "column p contains values other"),
        ({"x": GOOD.x[:-1]}, "differ in length"),
        ({"x": GOOD.x * 1j}, "column x has type complex128, not numbers"),
        ({"ts": GOOD.t}, "has several columns for t: t, ts"),
        ({"t": (GOOD.t + 2**24).astype(np.float32)}, r"t contains 16,78\d,\d+, more than float32 represents exactly"),
        ({"x": (GOOD.x + 2040).astype(np.float16)}, r"x contains 2,0\d\d, more than float16 represents exactly"),
    ],
)
def test_columns_are_checked_and_never_cast(changed: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadRecordingError, match=reason):
        read_recording("r.npz", columns(**changed))


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        (0, np.nan, "column x contains NaN or infinity in 1 value"),
        (0, 70000, "column x contains 70000"),
        (1, -1, "column y contains -1"),
        (2, 2, "column p contains values other"),
        (3, 0.0001, "column t contains fractional numbers"),
        (3, np.nan, "column t contains NaN or infinity in 1 value"),
        (3, 1e300, "column t contains"),
    ],
)
def test_gestures_of_tonic_are_checked_too(column: int, value: float, reason: str) -> None:
    array = np.stack([GOOD.x, GOOD.y, GOOD.p, GOOD.t], axis=1).astype(np.float64)
    assert read_gesture("0.npy", made.npy_bytes(array)).t.tolist() == (GOOD.t * 1000).tolist()
    array[5, column] = value
    with pytest.raises(BadRecordingError, match=reason):
        read_gesture("0.npy", made.npy_bytes(array))
    with pytest.raises(BadRecordingError, match="not numbers"):
        read_gesture("0.npy", made.npy_bytes(array.astype(str)))


# Formats


def aedat3_packet(kind: int = 1, source: int = 1, size: int = 8) -> bytes:
    """A packet of one event."""
    return struct.pack("<hhiiiiii", kind, source, size, 4, 0, 1, 1, 1) + bytes(size)


@pytest.mark.parametrize("ending", [".dat", ".bin", ".DAT", ".AEDAT", ".aedat2", ".Bin"])
def test_aedat_is_known_by_its_first_line_under_other_endings(tmp_path: Path, ending: str) -> None:
    events = over_sensor(128, 128, count=200)
    assert same(read_recording(f"r{ending}", aedat2_bytes(events)), events)
    assert same(read_recording(f"r{ending}", made.aedat3_bytes(events)), events)
    samples = load(folder_of(tmp_path, ending, aedat2_bytes(events))).load()
    assert len(samples.names) == 2


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("r.bin", made.npz_bytes(GOOD), "is a zip or .npz file with the extension .bin"),
        ("r.bin", made.npy_bytes(np.zeros((5, 4))), "is a .npy file"),
        ("r.bin", made.dat_bytes(GOOD), "is a Prophesee file"),
        ("r.bin", b"\x1f\x8b\x08" + bytes(7), "is a gzip file"),
        ("r.bin", b"version https://git-lfs.github.com/spec/v1\noid sha256:", "is a Git LFS pointer"),
        ("r.dat", b"version https://git-lfs.github.com/spec/v1\noid sha256:", "is a Git LFS pointer"),
        ("r.dat", b"% evt 3.0\n% end\n" + bytes(80), r"is a Prophesee RAW file \(evt 3.0\)"),
        ("r.dat", made.dat_bytes(GOOD).replace(bytes([12, 8]), bytes([14, 8])), "contains events of type 14"),
        ("r.dat", made.dat_bytes(GOOD)[:-1] + b"\x30", "contains polarities other than 0 and 1"),
        ("r.aedat", made.aedat3_bytes(GOOD)[:-1] + b"\x80", "timestamps of more than 31 bits"),
        ("r.npz", b"version https://git-lfs.github.com/spec/v1\noid sha256:", "is a Git LFS pointer"),
        ("r.npy", b"\x89HDF\r\n\x1a\n" + bytes(80), "is an HDF5 file with the extension .npy"),
        ("r.npy", b"<!DOCTYPE html><html>Not found</html>", "is a web page"),
        ("r.npy", b"t,x,y,p\n1,2,3,1\n", "cannot be read as .npy: it does not start as a numpy file"),
        ("r.aedat", made.aedat3_bytes(GOOD) + aedat3_packet(source=2), "contains events of 2 cameras"),
        ("r.aedat", made.aedat3_bytes(GOOD) + aedat3_packet(kind=1 - 2**15), "contains compressed packets"),
        ("r.aedat", made.aedat3_bytes(GOOD) + aedat3_packet(size=4), "has events of 4 bytes; polarity events have 8"),
    ],
)
def test_another_format_under_a_known_ending_is_refused(name: str, data: bytes, reason: str) -> None:
    with pytest.raises(BadRecordingError, match=reason):
        read_recording(name, data)


# Clocks


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


@pytest.mark.parametrize("ending", [".h5", ".raw", ".csv"])
def test_files_in_no_known_format_are_named(tmp_path: Path, ending: str) -> None:
    folder_of(tmp_path, ending, b"events")
    with pytest.raises(UserError, match=rf"contains neither recordings .* Found: .*\*\*/\*{ending} \(\d\)"):
        load(tmp_path).load()


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


# Frames


def test_counts_of_digits_events_above_255_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gradspike.data.options.events import DigitsEventsConfig
    from gradspike.data.sets import digits_events
    from gradspike.data.sets.digits_events import DigitsEvents

    few = [values[:40] for values in digits_events.read_digits()]
    monkeypatch.setattr(digits_events, "read_digits", lambda: few)
    config = DigitsEventsConfig.model_validate({"camera": {"threshold": 0.02, "refractory_us": 0}})
    source = DigitsEvents(config, 1, tmp_path)
    inputs = source.load().inputs
    assert inputs.dtype == np.int16
    assert inputs.max() > 255
    assert int(np.asarray(inputs).sum(dtype=np.int64)) == len(source.load_events().arrays["t"])


def ready(frames: np.ndarray, label: float = 0.0) -> bytes:
    import torch

    file = io.BytesIO()
    torch.save([torch.from_numpy(frames), torch.tensor([label])], file)
    return file.getvalue()


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (np.inf, "contains NaN or infinity in 1 value"),
        (np.nan, "contains NaN or infinity in 1 value"),
        (40_000, "a pixel has 40,000 events in one frame, more than 32,767"),
        (-1, "negative values"),
    ],
)
def test_ready_frames_with_values_that_do_not_fit_are_refused(value: float, reason: str) -> None:
    frames = np.ones((4, 2, 8, 8), dtype=np.float32)
    frames[1] = np.nan
    assert read_ready_frames(ready(frames), 4, 8, "events", "count")[0][1].sum() == 0, "a frame without events"
    frames[2, 0, 3, 3] = value
    with pytest.raises(ValueError, match=reason):
        read_ready_frames(ready(frames), 4, 8, "events", "count")
    with pytest.raises(ValueError, match="label nan"):
        read_ready_frames(ready(np.ones((4, 2, 8, 8), dtype=np.float32), np.nan), 4, 8, "events", "count")


def test_a_span_that_overflows_is_refused() -> None:
    events = replace(over_sensor(34, 34, count=2), t=np.array([0, 2**62]))
    with pytest.raises(ValueError, match="are too long to divide into 10 frames"):
        to_frames(events, (34, 34), 10)


@pytest.mark.parametrize(
    ("share", "text"), [(0.0, "0 %"), (0.0002, "0.02 %"), (0.1234, "12.3 %"), (0.99993, "99.99 %"), (1.0, "100.00 %")]
)
def test_shares_are_rounded_where_they_can_be(share: float, text: str) -> None:
    assert percent(share) == text


def test_the_summary_reports_what_was_left_out(tmp_path: Path) -> None:
    from helpers.command import command

    events = over_sensor(128, 128, count=2000)
    data = aedat2_bytes(events) + struct.pack(">II", 0x8000, int(events.t[-1])) * 10
    folder_of(tmp_path, ".aedat", data)
    words = ["dataset=event_folder", f"data_dir={tmp_path}", "dataset.image_size=16", "dataset.classes=1", "workers=1"]
    finished = command("prepare", *words)
    assert finished.returncode == 0, finished.stderr
    assert "events     4,000 on 128x128 pixels; 20 left out (0.498 %)" in finished.stdout
