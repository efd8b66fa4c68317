"""Event files: decoded like a slow, independent reader of the same bytes, or refused with a reason."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision import transforms

from gradspike.data.events.aedat2 import aedat2_bytes, unwrap
from gradspike.data.events.frames import tet_resize, to_frames
from gradspike.data.events.recording import BadRecordingError, Recording
from gradspike.data.events.recordings import read_recording
from gradspike.data.sets.dvs_gesture import read_gesture
from helpers import event_samples as made

Row = tuple[int, int, int, int]


def rows(events: Recording) -> list[Row]:
    """(t, x, y, p) of each event."""
    columns = (events.t.tolist(), events.x.tolist(), events.y.tolist(), events.p.astype(int).tolist())
    return list(zip(*columns, strict=True))


def slow_aedat2(data: bytes) -> Iterator[Row]:
    """Word by word, by the definition of jAER's DVS128 extractor: x counts from the right, y from below, 1 is OFF."""
    place = 0
    while data[place : place + 1] == b"#":
        place = data.index(b"\n", place) + 1
    for address, time in struct.iter_unpack(">II", data[place:]):
        if not address & 0x8000:
            yield time, 127 - (address & 0xFE) // 2, 127 - (address & 0x7F00) // 256, 1 - address % 2


def slow_bin(data: bytes) -> Iterator[Row]:
    """The 40 bits as the data set's page describes them: bits 39-32 x, 31-24 y, 23 polarity, 22-0 time."""
    for start in range(0, len(data), 5):
        word = int.from_bytes(data[start : start + 5], "big")
        yield word % 2**23, word >> 32, word >> 24 & 255, word >> 23 & 1


WRITERS: dict[str, Callable[[Recording], bytes]] = {
    "r.aedat": aedat2_bytes,
    "cAER.aedat": made.aedat3_bytes,
    "r.aedat4": made.aedat4_bytes,
    "r.bin": made.bin_bytes,
    "r.npz": made.npz_bytes,
    "r.npy": lambda events: made.npy_bytes(made.structured(events)),
    "columns.npy": lambda events: made.npy_bytes(np.array(rows(events))),
    "r.dat": made.dat_bytes,
}


@pytest.mark.parametrize("name", WRITERS)
def test_what_was_written_is_read(name: str) -> None:
    events = made.recording(1, count=500, size=128, duration_us=100_000)
    assert rows(read_recording(name, WRITERS[name](events))) == rows(events)


@pytest.mark.parametrize("name", ["session_a/Caixa.aedat", "session_b/Tesoura.aedat"])
def test_real_aedat2_is_what_a_slow_reading_finds(shared_data: Path, name: str) -> None:
    with zipfile.ZipFile(shared_data / "dvs128_objects.zip") as archive:
        data = archive.read(name)
    events = read_recording(name, data)
    assert rows(events) == list(slow_aedat2(data))
    events.check(128, 128)
    assert len(events) > 100_000


def test_real_nmnist_is_what_a_slow_reading_and_tonic_find(shared_data: Path, tmp_path: Path) -> None:
    from tonic.io import events_struct, read_mnist_file

    with zipfile.ZipFile(shared_data / "nmnist_1100.zip") as archive:
        names = archive.namelist()[::37]
        contents = {name: archive.read(name) for name in names}
    for name, data in contents.items():
        events = read_recording(name, data)
        assert rows(events) == list(slow_bin(data))
        events.check(34, 34)
    (tmp_path / "one.bin").write_bytes(data)
    theirs = read_mnist_file(str(tmp_path / "one.bin"), events_struct)
    for field in ("t", "x", "y", "p"):
        assert (theirs[field] == getattr(events, field)).all()


def test_overflow_events_of_nmnist_carry_the_time_on() -> None:
    events = made.recording(2, count=9, duration_us=5000, start=0)
    halves = made.bin_bytes(events[:4]), made.bin_bytes(events[4:])
    read = read_recording("r.bin", halves[0] + bytes([3, 240, 0, 0, 0]) * 2 + halves[1])
    assert read.t.tolist() == [*events.t[:4].tolist(), *(events.t[4:] + 2 * 2**13).tolist()]
    assert read.x.tolist() == events.x.tolist()
    assert read.special == 2


def test_special_events_of_a_dvs128_are_left_out_and_counted() -> None:
    events = made.recording(3, count=5, size=128)
    synchronisation = struct.pack(">II", 0x8000, int(events.t[-1]))
    read = read_recording("r.aedat", aedat2_bytes(events) + synchronisation * 3)
    assert rows(read) == rows(events)
    assert read.special == 3
    only = aedat2_bytes(events)[: -8 * 5] + synchronisation
    with pytest.raises(BadRecordingError, match=r"no events \(except 1 that"):
        read_recording("r.aedat", only).check(128, 128)


def test_time_goes_on_where_its_32_bits_wrap_around() -> None:
    start = 2**32 - 1500
    events = made.recording(4, size=128, start=start)
    assert rows(read_recording("r.aedat", aedat2_bytes(events))) == rows(events)
    assert read_recording("r.aedat", aedat2_bytes(events)).t[-1] == start + 2999 > 2**32
    later = replace(events, t=events.t + 2**31 - 2**32)
    assert rows(read_recording("r.aedat", made.aedat3_bytes(later))) == rows(later)
    assert unwrap(np.array([5, 3, 2**32 - 1, 1], dtype=np.uint32)).tolist() == [5, 3, -1, 1]


def test_tonic_gestures_have_their_columns_in_another_order() -> None:
    events = made.recording(5, size=128, duration_us=400)
    array = np.stack([events.x, events.y, events.p, events.t], axis=1).astype(np.float64)
    read = read_gesture("0.npy", made.npy_bytes(array))
    assert rows(read) == rows(replace(events, t=events.t * 1000))


def test_polarity_may_be_minus_one() -> None:
    events = made.recording(6)
    columns = {"timestamp": events.t.astype(float), "x": events.x, "y": events.y, "pol": np.where(events.p, 1, -1)}
    import io

    file = io.BytesIO()
    np.savez(file, **columns)
    assert rows(read_recording("r.npz", file.getvalue())) == rows(events)


GOOD = made.recording(7, count=40, size=100)


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("r.txt", b"1 2 3 4", "has none of the extensions .aedat4, .aedat, .bin"),
        ("r.bin", b"", "empty"),
        ("r.bin", made.bin_bytes(GOOD)[:-2], "truncated: 3 bytes"),
        ("r.aedat", aedat2_bytes(GOOD)[:-3], "truncated: 5 bytes"),
        ("r.aedat", b"#!AER-DAT2.0\r\n# cut of", "ends inside its header"),
        ("r.aedat", b"#!AER-DAT1.0\r\n" + bytes(12), "AEDAT 1.0; versions 2.0"),
        ("r.aedat", bytes(80), "no AEDAT header"),
        ("r.aedat", b"#!AER-DAT2.0\r\n# AEChip: eu.seebetter.ini.chips.CochleaAMS1c\r\n" + bytes(8), "CochleaAMS1c"),
        ("r.aedat", made.aedat3_bytes(GOOD)[:-3], "truncated inside a packet"),
        ("r.aedat", made.aedat3_bytes(GOOD)[: -15 * 8 - 3], "truncated inside the header of a packet"),
        ("r.aedat", b"#!AER-DAT3.1\r\n" + bytes(8), "END-HEADER"),
        ("r.aedat4", made.aedat4_bytes(GOOD)[:-30], "cannot be decoded as .aedat4"),
        ("r.aedat4", b"#!AER-DAT4.0\r\n", "its header is damaged"),
        ("r.aedat4", made.aedat4_bytes(GOOD)[:300], "ends inside its header"),
        ("r.aedat4", made.aedat4_bytes(GOOD).replace(b"mainloop", b"main\xff\xc3op"), "its header is damaged"),
        ("r.aedat4", made.aedat4_bytes(GOOD).replace(b"</dv>", b"</vd>"), "its header is damaged"),
        ("r.aedat4", made.aedat4_bytes(GOOD[:0]).replace(b"EVTS", b"FRME"), "no event stream"),
        ("r.aedat4", aedat2_bytes(GOOD), "does not start with"),
        ("r.dat", made.dat_bytes(GOOD)[:-1], "truncated: 7 bytes"),
        ("r.dat", made.dat_bytes(GOOD, version=1), "version 1"),
        ("r.dat", bytes(80), "no header"),
        ("r.npz", b"PK\x03\x04 and no more", "cannot be read as .npz"),
        ("r.npz", made.npz_bytes(GOOD)[:-40], "cannot be read as .npz"),
        ("r.npy", b"\x93NUMPY", "cannot be"),
        ("r.npy", made.npy_bytes(np.zeros((5, 3))), r"shape \(5, 3\)"),
        ("r.npy", made.npy_bytes(np.full((5, 4), 0.5)), "column t contains fractional numbers; times are whole"),
        ("r.npy", made.npy_bytes(np.full((5, 4), 7)), "column p contains values other"),
        (
            "r.npy",
            made.npy_bytes(np.full((5, 4), 2**20) * [0, 1, 0, 0]),
            "column x contains 1048576",
        ),
        ("r.npy", made.npy_bytes(np.array([("a",)], dtype=[("t", "U1")])), "no column x"),
    ],
)
def test_a_file_that_cannot_be_decoded_is_refused_with_the_reason(name: str, data: bytes, reason: str) -> None:
    with pytest.raises(BadRecordingError, match=reason):
        read_recording(name, data)


def test_events_that_make_no_sense_are_refused() -> None:
    with pytest.raises(BadRecordingError, match="contains no events"):
        GOOD[:0].check(128, 128)
    back = replace(GOOD, t=GOOD.t.copy())
    back.t[20:] -= 1000
    with pytest.raises(BadRecordingError, match=r"backwards 1 time, first after event 19 \(by .* us\)"):
        back.check(128, 128)
    with pytest.raises(BadRecordingError, match=f"outside the sensor of 34x{GOOD.y.max() + 1} pixels"):
        GOOD.check(34, int(GOOD.y.max()) + 1)
    GOOD.check(100, 100)


@pytest.mark.parametrize("binning", ["binary", "count"])
def test_tet_frames_are_those_of_the_released_code(binning: str) -> None:
    """torchvision's transforms on each frame, as in data_loaders.py of its authors."""
    events = made.recording(8, count=20_000, size=128)
    counts = to_frames(events, (128, 128), 4, "equal_count", binning=binning)  # type: ignore[arg-type]
    values = counts.astype(np.float32) / counts.max(axis=(1, 2, 3), keepdims=True)
    released = transforms.Compose([transforms.ToPILImage(), transforms.Resize((48, 48)), transforms.ToTensor()])
    theirs = torch.stack([released(frame) for frame in torch.from_numpy(values)])
    ours = torch.from_numpy(tet_resize(values, 48)).div(255)
    assert torch.equal(ours, theirs)
    assert 0 < ours.mean() < 1
