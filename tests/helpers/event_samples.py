"""Small event recordings of known content, in every format, and event data sets in the layouts that users have."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from gradspike.data.events.aedat2 import aedat2_bytes
from gradspike.data.events.recording import Recording
from gradspike.data.sets.cifar10dvs import CLASS_NAMES
from gradspike.data.sets.export import npz_bytes

if TYPE_CHECKING:
    import torch

Options = dict[str, Any]


def recording(seed: int, count: int = 60, size: int = 34, duration_us: int = 3000, start: int = 1000) -> Recording:
    """Random events, sorted by time, which end at the last microsecond."""
    rng = np.random.default_rng(seed)
    t = np.sort(rng.integers(0, duration_us, count))
    t[[0, -1]] = 0, duration_us - 1
    x, y = rng.integers(0, size, (2, count)).astype(np.int16)
    return Recording(t + start, x, y, rng.integers(0, 2, count).astype(bool))


def bin_bytes(events: Recording) -> bytes:
    """N-MNIST's 40 bits, event by event. Times have 23 bits."""
    rows = zip(events.t.tolist(), events.x.tolist(), events.y.tolist(), events.p.tolist(), strict=True)
    return b"".join(struct.pack(">BBBH", x, y, p << 7 | t >> 16, t & 0xFFFF) for t, x, y, p in rows)


def dat_bytes(events: Recording, version: int = 2) -> bytes:
    """A .dat file of Prophesee's format."""
    header = f"% Data file containing CD events.\n% Version {version}\n% Date 2017-01-01 00:00:00\n".encode()
    rows = zip(events.t.tolist(), events.x.tolist(), events.y.tolist(), events.p.tolist(), strict=True)
    words = b"".join(struct.pack("<II", t, x | y << 14 | p << 28) for t, x, y, p in rows)
    return header + bytes([12, 8]) + words


def npy_bytes(array: np.ndarray) -> bytes:
    """A .npy file."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def structured(events: Recording) -> np.ndarray:
    """The events as tonic's structured array, with the fields in another order."""
    array = np.empty(len(events), dtype=[("x", np.int16), ("y", np.int16), ("p", bool), ("t", np.int64)])
    for field in ("t", "x", "y", "p"):
        array[field] = getattr(events, field)
    return array


def aedat3_bytes(events: Recording, per_packet: int = 25) -> bytes:
    """AEDAT 3.1 with a packet of special events and an event marked invalid in front, as cAER would write it."""
    header = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: DVS128\r\n#Start-Time: 2016-01-01\r\n#!END-HEADER\r\n"
    special = struct.pack("<hhiiiiii", 0, 1, 8, 4, 0, 1, 1, 1) + struct.pack("<II", 1, 0)
    packets = [special, struct.pack("<hhiiiiii", 1, 1, 8, 4, 0, 1, 1, 0) + struct.pack("<II", 5 << 17 | 6 << 2, 1)]
    rows = list(zip(events.t.tolist(), events.x.tolist(), events.y.tolist(), events.p.tolist(), strict=True))
    for overflow in sorted({t >> 31 for t, *_ in rows}):
        of = [row for row in rows if row[0] >> 31 == overflow]
        for start in range(0, len(of), per_packet):
            part = of[start : start + per_packet]
            packets.append(struct.pack("<hhiiiiii", 1, 1, 8, 4, overflow, len(part), len(part), len(part)))
            packets += [struct.pack("<II", x << 17 | y << 2 | p << 1 | 1, t & 0x7FFFFFFF) for t, x, y, p in part]
    return header + b"".join(packets)


def aedat4_bytes(
    events: Recording, per_packet: int = 25, compression: int = 0, packed: Callable[[bytes], bytes] = bytes
) -> bytes:
    """AEDAT 4.0, its flatbuffers put together by hand from the format's schema.

    compression: the field of the header. packed: what compresses a packet.
    """
    info = (
        b'<dv version="2.0"><node name="outInfo" path="/mainloop/Recorder/outInfo/"><node name="0" path="/mainloop/'
        b'Recorder/outInfo/0/"><attr key="compression" type="string">NONE</attr><attr key="originalModuleName" '
        b'type="string">capture</attr><attr key="originalOutputName" type="string">events</attr><attr key='
        b'"typeDescription" type="string">events</attr><attr key="typeIdentifier" type="string">EVTS</attr><node '
        b'name="info" path="/mainloop/Recorder/outInfo/0/info/"><attr key="sizeX" type="int">128</attr><attr key='
        b'"sizeY" type="int">128</attr><attr key="source" type="string">DVS128</attr></node></node></node></dv>'
    )
    packets = []
    rows = list(zip(events.t.tolist(), events.x.tolist(), events.y.tolist(), events.p.tolist(), strict=True))
    for start in range(0, len(rows), per_packet):
        part = rows[start : start + per_packet]
        data = b"".join(struct.pack("<qhh?3x", t, x, y, p) for t, x, y, p in part)
        # Size, root offset, identifier, vtable (size 6, table 8, field at 4), padding, table (vtable, vector), length.
        packet = struct.pack("<I4sHHHxx", 16, b"EVTS", 6, 8, 4) + struct.pack("<iI", 8, 8) + bytes(4)
        packet += struct.pack("<I", len(part)) + data
        packet = packed(struct.pack("<I", len(packet)) + packet)
        packets.append(struct.pack("<iI", 0, len(packet)) + packet)
    body = b"".join(packets)
    # Root offset, identifier, vtable of three fields (compression, table position, info), table, string.
    table = struct.pack("<iiqI", 12, compression, -1, 4) + struct.pack("<I", len(info)) + info + b"\0"
    header = struct.pack("<I4sHHHHHxx", 20, b"IOHE", 10, 20, 4, 8, 16) + table
    return b"#!AER-DAT4.0\r\n" + struct.pack("<I", len(header)) + header + body


def write(path: Path, content: bytes) -> None:
    """Write a file, with the folders around it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def write_nmnist(folder: Path, digits: int = 3, train: int = 4, test: int = 2) -> dict[str, Recording]:
    """Train|Test/<digit>/<number>.bin. Returns the recordings by name."""
    written: dict[str, Recording] = {}
    for split, count in (("Train", train), ("Test", test)):
        for digit in range(digits):
            for _ in range(count):
                name = f"{split}/{digit}/{len(written):05d}.bin"
                written[name] = recording(len(written))
                write(folder / name, bin_bytes(written[name]))
    return written


def write_cifar10dvs(
    folder: Path, classes: int = 3, per_class: int = 10, ending: str = "aedat"
) -> dict[str, Recording]:
    """<class>/cifar10_<class>_<number>.<ending>. Returns the upright recordings by name."""
    written = {}
    for name in CLASS_NAMES[:classes]:
        for number in range(per_class):
            events = recording(len(written), size=128)
            path = f"{name}/cifar10_{name}_{number}.{ending}"
            if ending == "aedat":
                write(folder / path, aedat2_bytes(Recording(events.t, events.y, events.x, events.p)))
            else:
                write(folder / path, {"aedat4": aedat4_bytes, "npz": npz_bytes}[ending](events))
            written[path] = events
    return written


def write_ncaltech101(folder: Path, per_class: int = 6) -> dict[str, Recording]:
    """Caltech101/<class>/image_<number>.bin, each with another extent, and outlines. Returns the recordings by name."""
    written = {}
    for name in ("BACKGROUND_Google", "Faces_easy", "accordion"):
        for number in range(1, per_class + 1):
            events = recording(len(written), size=180, duration_us=300_000)
            wide = np.random.default_rng(len(written)).integers(120, 240, len(events)).astype(np.int16)
            events = Recording(events.t, np.where(events.p, wide, events.x), events.y, events.p)
            path = f"Caltech101/{name}/image_{number:04d}.bin"
            written[path] = events
            write(folder / path, bin_bytes(events))
            write(folder / f"Caltech101_annotations/{name}/annotation_{number:04d}.bin", bytes(44))
    return written


def write_dvs_gesture(folder: Path, people: tuple[int, ...] = (1, 2, 3, 24)) -> dict[str, np.ndarray]:
    """As tonic distributes it: x, y, p, t in milliseconds. Returns the arrays by name."""
    written = {}
    for person in people:
        top = "ibmGestureTest" if person >= 24 else "ibmGestureTrain"
        for label in range(11):
            events = recording(person * 100 + label, size=128, duration_us=500)
            name = f"{top}/user{person:02d}_led/{label}.npy"
            written[name] = np.stack([events.x, events.y, events.p, events.t], axis=1).astype(np.float64)
            write(folder / name, npy_bytes(written[name]))
    return written


def write_ready_frames(folder: Path, time_steps: int = 4, train: int = 10, test: int = 3) -> dict[str, torch.Tensor]:
    """train/<n>.pt and test/<n>.pt as TET's: binary frames [2, H, W, T], labelled by number. Returns frames by name."""
    import torch  # not above: processes that prepare import this module, and torch takes seconds

    written = {}
    for split, count in (("train", train), ("test", test)):
        (folder / split).mkdir(parents=True)
        for number in range(count):
            generator = torch.Generator().manual_seed(len(written))
            frames = (torch.rand(2, 128, 128, time_steps, generator=generator) < 0.1).float()
            torch.save([frames, torch.tensor([float(number)])], folder / split / f"{number}.pt")
            written[f"{split}/{number}.pt"] = frames
    return written


def write_event_folder(folder: Path) -> None:
    """A user's recordings of three classes, each in another format."""
    kinds: dict[str, Callable[[Recording], bytes]] = {
        "aedat": aedat2_bytes,
        "bin": bin_bytes,
        "npz": npz_bytes,
        "dat": dat_bytes,
    }
    for split in ("train", "test"):
        for place, name in enumerate(("ant", "bee", "cat")):
            for number, (ending, made) in enumerate(kinds.items()):
                write(folder / split / name / f"{number}.{ending}", made(recording(place * 10 + number)))


def _files(writer: Callable[[Path], object], **options: Any) -> Callable[[Path], Options]:
    def source(folder: Path) -> Options:
        writer(folder / "files")
        return {"source": str(folder / "files"), "image_size": 16, **options}

    return source


def write_squares(folder: Path, train: int = 2, test: int = 1) -> None:
    """CIFAR-10's classes as split/class/name.png: a light square on grey, at another place in each image."""
    for label, name in enumerate(CLASS_NAMES):
        for number in range(train + test):
            picture = np.full((32, 32, 3), 90, dtype=np.uint8)
            top, left = 2 * label, 6 * number
            picture[top : top + 8, left : left + 8] = (250, 200, 150)
            path = folder / ("train" if number < train else "test") / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(path)


def _cifar10dvs_sim(folder: Path) -> Options:
    write_squares(folder / "files")
    return {"source": str(folder / "files"), "image_size": 16, "per_class": 3, "folds": 3}


EVENT_SOURCES: dict[str, Callable[[Path], Options]] = {
    "nmnist": _files(write_nmnist, classes=3),
    "ncaltech101": _files(write_ncaltech101, classes=3, folds=3),
    "cifar10dvs": _files(write_cifar10dvs, classes=3),
    "dvs_gesture": _files(write_dvs_gesture, classes=11),
    "event_folder": _files(write_event_folder, classes=3),
    "cifar10dvs_sim": _cifar10dvs_sim,
}
"""By the name of a data set: writes a small source of it into a folder and returns the options that go with it."""
