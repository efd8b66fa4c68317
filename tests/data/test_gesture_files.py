"""DVS128 Gesture from both of its distributions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gradspike.data.events.recording import Recording
from gradspike.data.source import Samples
from gradspike.errors import UserError
from helpers import event_samples as made
from helpers.event_sources import load, source, split_of


def test_a_clip_without_events_does_not_take_the_others_of_its_file_along(tmp_path: Path) -> None:
    events = made.recording(0, count=300, size=128, duration_us=30_000, start=0)
    table = "class,startTime_usec,endTime_usec\n1,0,10000\n2,90000,99000\n3,10000,30000\n"
    for person in (1, 24):
        made.write(tmp_path / f"DVSGesture/user{person:02d}_led.aedat", made.aedat3_bytes(events))
        made.write(tmp_path / f"DVSGesture/user{person:02d}_led_labels.csv", table.encode())
    frames = source("dvs_gesture", tmp_path, image_size=16, on_bad_file="skip").load_frames()
    assert frames.arrays["labels"].tolist() == [0, 2, 0, 2]
    assert sum("has no events between 90,000 and 99,000 us" in problem for _, problem in frames.facts["bad"]) == 2


def test_gestures_come_from_both_distributions_alike(tmp_path: Path) -> None:
    """The published files contain all gestures of a subject, and a table with the start and end of each."""
    written = made.write_dvs_gesture(tmp_path / "DVSGesture")
    published = tmp_path / "published"
    for person in (1, 2, 3, 24):
        parts, table = [], ["class,startTime_usec,endTime_usec"]
        for label in range(11):
            name = next(name for name in written if f"user{person:02d}_led/{label}.npy" in name)
            x, y, p, t = written[name].astype(np.int64).T
            start = 10**6 * (label + 1)
            parts.append(Recording(t * 1000 - 10**6 + start, x.astype(np.int16), y.astype(np.int16), p > 0))
            table.append(f"{label + 1},{start},{start + 499_001}")
        joined = Recording(*(np.concatenate([getattr(part, field) for part in parts]) for field in "txyp"))
        made.write(published / f"user{person:02d}_led.aedat", made.aedat3_bytes(joined))
        made.write(published / f"user{person:02d}_led_labels.csv", "\n".join(table).encode())
    extracted = load("dvs_gesture", tmp_path, image_size=16, bins="equal_time")
    cut = load("dvs_gesture", tmp_path, source=str(published), image_size=16, bins="equal_time")

    def by_clip(samples: Samples, person: int, label: int) -> np.ndarray:
        return np.asarray(
            [
                samples.inputs[index]
                for index, name in enumerate(samples.names)
                if f"user{person:02d}" in name and samples.labels[index] == label
            ]
        )

    assert len(cut.names) == len(extracted.names) == 44
    assert cut.names[0] == "user01_led.aedat@1.0s"
    for person in (1, 2, 3, 24):
        for label in range(11):
            assert (by_clip(extracted, person, label) == by_clip(cut, person, label)).all()
    for samples in (extracted, cut):
        of_person = {name.partition("user")[2][:2]: set() for name in samples.names}
        for name, split in split_of(samples).items():
            of_person[name.partition("user")[2][:2]].add(split)
        assert of_person.pop("24") == {"test"}
        assert sorted(len(splits) for splits in of_person.values()) == [1, 1, 1]
        assert sum(splits == {"val"} for splits in of_person.values()) == 1
    ten = load("dvs_gesture", tmp_path, source=str(published), image_size=16, classes=10)
    assert len(ten.names) == 40
    (published / "user02_led_labels.csv").unlink()
    with pytest.raises(
        UserError, match=r"user02_led_labels.csv: is missing; it contains the labels of user02_led.aedat"
    ):
        load("dvs_gesture", tmp_path, source=str(published), image_size=16)


def test_gestures_are_found_whatever_their_case_and_none_is_passed_over(tmp_path: Path) -> None:
    events = made.recording(0, count=300, size=128, duration_us=30_000, start=0)
    table = b"class,startTime_usec,endTime_usec\n1,0,30000\n"
    for person in (1, 2, 24):
        made.write(tmp_path / f"DVSGesture/User{person:02d}_LED.AEDAT", made.aedat3_bytes(events))
        made.write(tmp_path / f"DVSGesture/User{person:02d}_LED_labels.csv", table)
    made.write(tmp_path / "DVSGesture/trials_to_train.txt", b"user01_led.aedat\n")
    options: dict[str, Any] = {"image_size": 16, "on_bad_file": "skip"}
    assert len(source("dvs_gesture", tmp_path, **options).load_frames().arrays["labels"]) == 3
    made.write(tmp_path / "DVSGesture/person3.aedat", made.aedat3_bytes(events))
    with pytest.raises(UserError, match=r"person3.aedat: is named neither user<number>_<light>.aedat nor"):
        source("dvs_gesture", tmp_path, image_size=16).load()
    made.write_dvs_gesture(tmp_path / "tonic")
    made.write(tmp_path / "tonic/ibmGestureTrain/user01_led/11.npy", made.npy_bytes(np.zeros((4, 4))))
    with pytest.raises(UserError, match=r"11.npy: has label 11; labels are 0 to 10"):
        load("dvs_gesture", tmp_path, source=str(tmp_path / "tonic"), image_size=16)
