"""Invalid values in event files: columns, shares left out, formats under other endings, ready frames."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gradspike.data.events.aedat2 import aedat2_bytes
from gradspike.data.events.ready_frames import read_ready_frames
from gradspike.data.events.recording import BadRecordingError, percent
from gradspike.data.events.recordings import read_recording
from gradspike.data.sets.dvs_gesture import read_gesture
from gradspike.errors import UserError
from helpers import event_samples as made
from helpers.event_values import aedat2, facts, folder_of, load, over_sensor, same


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


@pytest.mark.parametrize("ending", [".h5", ".raw", ".csv"])
def test_files_in_no_known_format_are_named(tmp_path: Path, ending: str) -> None:
    folder_of(tmp_path, ending, b"events")
    with pytest.raises(UserError, match=rf"contains neither recordings .* Found: .*\*\*/\*{ending} \(\d\)"):
        load(tmp_path).load()


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
