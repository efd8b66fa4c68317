"""Sensors of event cameras: addresses decoded as header or user says, and the extent of the data against the size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gradspike.data.events.aedat2 import aedat2_bytes, read_aedat2
from gradspike.data.events.chips import CHIPS, chip_named
from gradspike.data.events.frames import to_frames
from gradspike.data.events.recording import BadRecordingError, Recording
from gradspike.data.events.recordings import read_recording
from gradspike.errors import UserError
from helpers import event_samples as made
from helpers.event_values import aedat2, facts, folder_of, load, over_sensor, same


def davis_address(events: Recording, width: int, height: int) -> np.ndarray:
    """By iniVation's description: bits 22-30 y, 12-21 x, 11 polarity, both axes from the other end."""
    x, y = (width - 1 - events.x).astype(np.uint32), (height - 1 - events.y).astype(np.uint32)
    return y << 22 | x << 12 | events.p.astype(np.uint32) << 11


def dvs640_address(events: Recording) -> np.ndarray:
    """As jAER's DVS640 and v2e have it: bits 11-20 y, 1-10 x, 0 polarity."""
    x, y = (639 - events.x).astype(np.uint32), (479 - events.y).astype(np.uint32)
    return y << 11 | x << 1 | events.p.astype(np.uint32)


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
