"""Event data sets from files: search, split, windows, binning, and refused files."""

from __future__ import annotations

import csv
import logging
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torchvision import transforms

from gradspike.data.events.aedat2 import aedat2_bytes
from gradspike.data.events.frames import to_frames
from gradspike.data.events.listing import RemoteFile, seconds
from gradspike.data.events.recording import Recording
from gradspike.data.events.source import EventSource
from gradspike.data.registry import DATASETS
from gradspike.data.sets.cifar10dvs import CLASS_NAMES
from gradspike.data.sets.nmnist import NMnist
from gradspike.data.source import SPLITS, UNUSED, Samples
from gradspike.errors import ConfigError, UserError
from helpers import event_samples as made
from helpers.data_samples import pack


def source(name: str, data_dir: Path, time_steps: int = 4, **options: Any) -> EventSource[Any]:
    config = DATASETS.config_class(name)(name=name, **options)
    made_source: EventSource[Any] = DATASETS.implementation(name)(config, time_steps, data_dir)
    made_source.prepare_workers = 1
    return made_source


def load(name: str, data_dir: Path, time_steps: int = 4, **options: Any) -> Samples:
    return source(name, data_dir, time_steps, **options).load()


def split_of(samples: Samples) -> dict[str, str]:
    return {samples.names[i]: SPLITS[samples.splits[i]] for i in range(len(samples.names))}


def test_nmnist_comes_from_folder_zip_tar_and_two_archives_alike(tmp_path: Path) -> None:
    written = made.write_nmnist(tmp_path / "files")
    pack(tmp_path / "files", tmp_path / "one.zip", "N-MNIST/")
    pack(tmp_path / "files", tmp_path / "one.tar.gz")
    (tmp_path / "two").mkdir()
    for split in ("Train", "Test"):
        pack(tmp_path / "files" / split, tmp_path / f"two/{split}.zip", f"{split}/")
    first = load("nmnist", tmp_path, source=str(tmp_path / "files"), classes=3)
    assert list(first.names) == sorted(written)
    for index, name in enumerate(first.names):
        assert (first.inputs[index] == to_frames(written[name], (34, 34), 4, "equal_time")).all()
        assert str(first.labels[index]) == name.split("/")[1] == first.class_names[first.labels[index]]
    assert {split_of(first)[name] for name in written if name.startswith("Test")} == {"test"}
    for other in ("one.zip", "one.tar.gz", "two"):
        again = load("nmnist", tmp_path, source=str(tmp_path / other), classes=3)
        assert list(again.names) == list(first.names)
        assert (np.asarray(again.inputs) == np.asarray(first.inputs)).all()
        assert (again.splits == first.splits).all()


@pytest.mark.parametrize("ending", ["aedat", "aedat4", "npz"])
def test_cifar10dvs_is_split_nine_to_one_by_number(tmp_path: Path, ending: str) -> None:
    """By number, not by name: 10 comes after 9."""
    written = made.write_cifar10dvs(tmp_path / "CIFAR10DVS", classes=2, per_class=20, ending=ending)
    samples = load("cifar10dvs", tmp_path, classes=2, image_size=16)
    splits = split_of(samples)
    assert splits.keys() == written.keys()
    for name, split in splits.items():
        number = int(name.rpartition("_")[2].partition(".")[0])
        assert (split == "test") == (number >= 18)
    assert sum(split == "val" for split in splits.values()) == 2 * 2
    for index, name in enumerate(samples.names):
        frames = to_frames(written[name], (128, 128), 4, "equal_count", image_size=(16, 16))
        assert (samples.inputs[index] == frames).all()
    assert samples.class_names == CLASS_NAMES[:2]


def test_the_split_is_recorded_by_file_name(tmp_path: Path) -> None:
    made.write_cifar10dvs(tmp_path / "CIFAR10DVS", classes=2)
    samples = load("cifar10dvs", tmp_path, classes=2, image_size=16)
    (record,) = (tmp_path / "prepared").glob("cifar10dvs-split-*/split.csv")
    with record.open(newline="") as file:
        recorded = {row["name"]: row["split"] for row in csv.DictReader(file)}
    assert recorded == split_of(samples)


def test_folds_are_disjoint_and_cover_everything_without_decoding_again(tmp_path: Path) -> None:
    made.write_cifar10dvs(tmp_path / "CIFAR10DVS", classes=2, per_class=12)
    options: dict[str, Any] = {"classes": 2, "image_size": 16, "folds": 5}
    tested = []
    for fold in range(5):
        splits = split_of(load("cifar10dvs", tmp_path, test_fold=fold, **options))
        tested.append({name for name, split in splits.items() if split == "test"})
    assert len(set.union(*tested)) == sum(len(names) for names in tested) == 24
    assert (
        load("cifar10dvs", tmp_path, **options).splits.tolist()
        == load("cifar10dvs", tmp_path, test_fold=4, **options).splits.tolist()
    )
    assert len(list((tmp_path / "prepared").glob("cifar10dvs-????????????????"))) == 1


def test_cifar10dvs_comes_as_ten_archives_also_inside_another(tmp_path: Path) -> None:
    made.write_cifar10dvs(tmp_path / "plain", classes=3)
    (tmp_path / "CIFAR10DVS").mkdir()
    for name in CLASS_NAMES[:3]:
        pack(tmp_path / "plain" / name, tmp_path / f"CIFAR10DVS/{name}.zip", f"{name}/")
    pack(tmp_path / "CIFAR10DVS", tmp_path / "nested.zip")
    options: dict[str, Any] = {"classes": 3, "image_size": 16}
    plain = load("cifar10dvs", tmp_path, source=str(tmp_path / "plain"), **options)
    for other in (None, str(tmp_path / "nested.zip")):
        again = load("cifar10dvs", tmp_path, source=other, **options)
        assert split_of(again) == split_of(plain)
        assert (np.asarray(again.inputs) == np.asarray(plain.inputs)).all()
    leftovers = [path for path in (tmp_path / "prepared").rglob("*") if path.suffix == ".zip" or "archive" in path.name]
    assert not leftovers


def test_the_same_recording_in_two_formats_is_refused(tmp_path: Path) -> None:
    made.write_cifar10dvs(tmp_path / "CIFAR10DVS", classes=1, per_class=3)
    made.write(tmp_path / "CIFAR10DVS/airplane/cifar10_airplane_1.npz", made.npz_bytes(made.recording(0)))
    with pytest.raises(UserError, match=r"cifar10_airplane_1.npz: is recording 1 of class airplane, as is .*_1.aedat"):
        load("cifar10dvs", tmp_path, classes=1, image_size=16)


def test_more_folds_than_recordings_are_refused(tmp_path: Path) -> None:
    """The test split would be empty."""
    made.write_cifar10dvs(tmp_path / "CIFAR10DVS", classes=2, per_class=4)
    with pytest.raises(ConfigError, match=r"folds=10: the class airplane has 4 recordings.*Set dataset.folds=4"):
        load("cifar10dvs", tmp_path, classes=2, image_size=16)
    assert len(load("cifar10dvs", tmp_path, classes=2, image_size=16, folds=4).indices("test")) == 2


def test_two_recordings_of_one_name_are_refused(tmp_path: Path) -> None:
    """Otherwise one of them could be used for training and the other for validation."""
    folder = tmp_path / "event_folder"
    made.write_event_folder(folder)
    made.write(folder / "train/bee/0.npz", made.npz_bytes(made.recording(10)))
    with pytest.raises(UserError, match=r"bee/0.npz: has the same name as .*bee/0.aedat"):
        load("event_folder", tmp_path, image_size=16, classes=3)
    assert len(load("event_folder", tmp_path, image_size=16, classes=3, on_bad_file="skip").names) == 24
    write_sessions(tmp_path / "sessions")
    made.write(tmp_path / "sessions/session_a/Caixa.npz", made.npz_bytes(made.recording(0)))
    made.write(tmp_path / "sessions/session_a/notes.h5", b"hello")
    with pytest.raises(UserError) as error:
        load("event_folder", tmp_path, source=str(tmp_path / "sessions"), **SESSIONS)
    assert "session_a/Caixa.npz: has the same name as" in str(error.value)
    assert "session_a/notes.h5: has none of the extensions" in str(error.value)


def test_a_clip_without_events_does_not_take_the_others_of_its_file_along(tmp_path: Path) -> None:
    events = made.recording(0, count=300, size=128, duration_us=30_000, start=0)
    table = "class,startTime_usec,endTime_usec\n1,0,10000\n2,90000,99000\n3,10000,30000\n"
    for person in (1, 24):
        made.write(tmp_path / f"DVSGesture/user{person:02d}_led.aedat", made.aedat3_bytes(events))
        made.write(tmp_path / f"DVSGesture/user{person:02d}_led_labels.csv", table.encode())
    frames = source("dvs_gesture", tmp_path, image_size=16, on_bad_file="skip").load_frames()
    assert frames.arrays["labels"].tolist() == [0, 2, 0, 2]
    assert sum("has no events between 90,000 and 99,000 us" in problem for _, problem in frames.facts["bad"]) == 2


def test_ready_frames_are_what_the_released_code_loads(tmp_path: Path) -> None:
    written = made.write_ready_frames(tmp_path / "dvs-cifar10")
    samples = load("cifar10dvs", tmp_path, resize="tet", val_fraction=0.0)
    steps = [transforms.ToPILImage(), transforms.Resize(size=(48, 48)), transforms.ToTensor()]
    for index, name in enumerate(samples.names):
        theirs = torch.stack([transforms.Compose(steps)(written[name][..., t]) for t in range(4)])
        assert torch.equal(torch.from_numpy(np.array(samples.inputs[index])).div(255), theirs)
        assert samples.labels[index] == int(name.partition("/")[2][0])
        assert split_of(samples)[name] == name.partition("/")[0]
    counted = load("cifar10dvs", tmp_path, image_size=32, val_fraction=0.0)
    for index, name in enumerate(counted.names):
        blocks = written[name].permute(3, 0, 1, 2).reshape(4, 2, 32, 4, 32, 4).sum((3, 5))
        assert torch.equal(torch.from_numpy(np.array(counted.inputs[index])), blocks.to(torch.uint8))
    with pytest.raises(UserError, match="contains 4 frames: set time_steps=4"):
        load("cifar10dvs", tmp_path, time_steps=5, resize="tet")
    with pytest.raises(ConfigError, match="already split into the folders"):
        load("cifar10dvs", tmp_path, resize="tet", test_fold=3)


def test_tet_frames_reach_the_network_as_zero_to_one(tmp_path: Path) -> None:
    from gradspike.data.augment.batch import BatchTransform

    made.write_cifar10dvs(tmp_path / "CIFAR10DVS", classes=1, per_class=10)
    opened = source("cifar10dvs", tmp_path, classes=1, resize="tet", image_size=16, augment={"roll": 0})
    stored = torch.from_numpy(np.array(opened.load().inputs[:2]))
    fed = BatchTransform(opened.config, seed=0)(stored, torch.arange(2), None)
    assert torch.equal(fed, stored.transpose(0, 1).div(255))
    assert 0 < fed.max() <= 1


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


def write_sessions(folder: Path, seconds: float = 0.9) -> dict[str, Recording]:
    """One recording per class and session, with the class in the file name."""
    written = {}
    for session in ("session_a", "session_b"):
        for number, name in enumerate(("Caixa", "Caneca")):
            events = made.recording(number, count=900, size=128, duration_us=round(seconds * 1e6))
            made.write(folder / session / f"{name}.aedat", aedat2_bytes(events))
            written[f"{session}/{name}.aedat"] = events
    return written


SESSIONS: dict[str, Any] = {"train_folder": "session_a", "test_folder": "session_b", "image_size": 16, "classes": 2}


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


def test_bad_files_are_named_and_refused_or_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "event_folder"
    made.write_event_folder(folder)
    back = made.recording(0)
    back.t[30:] -= 500
    bad = {
        "train/ant/empty.bin": (b"", "is empty"),
        "train/ant/cut.bin": (made.bin_bytes(made.recording(0))[:-1], "truncated"),
        "train/bee/back.npz": (made.npz_bytes(back), "time goes backwards 1 time,"),
        "train/bee/none.aedat": (aedat2_bytes(made.recording(0))[: -60 * 8], "contains no events"),
        "train/cat/outside.npz": (made.npz_bytes(made.recording(0, size=200)), "38 events outside the sensor"),
        "train/cat/notes.h5": (b"hello", "has none of the extensions"),
        "train/ghost.bin": (made.bin_bytes(made.recording(0)), "is not in a class folder"),
    }
    for name, (content, _) in bad.items():
        made.write(folder / name, content)
    (folder / "train/ant/gone.bin").symlink_to("nowhere")
    options: dict[str, Any] = {"image_size": 16, "classes": 3}
    with pytest.raises(UserError, match=r"notes.h5: has none of the extensions[^$]*dataset.on_bad_file=skip"):
        load("event_folder", tmp_path, **options)
    with caplog.at_level(logging.WARNING, "gradspike"):
        samples = load("event_folder", tmp_path, on_bad_file="skip", **options)
    told = " ".join(caplog.messages)
    for name, (_, problem) in bad.items():
        assert f"{folder / name}: {problem}" in told
    assert f"{folder / 'train/ant/gone.bin'}: No such file" in told
    assert len(samples.names) == 24
    with pytest.raises(UserError, match=r"cut.bin: truncated"):
        load("event_folder", tmp_path, **options)


def test_what_the_user_said_is_compared_with_the_files(tmp_path: Path) -> None:
    made.write_event_folder(tmp_path / "event_folder")
    with pytest.raises(ConfigError, match=r"has 3 classes \(ant, bee, cat\); set dataset.classes=3 \(it is 5\)"):
        load("event_folder", tmp_path, image_size=16, classes=5)
    with pytest.raises(UserError, match=r"no recordings in a folder session_z for the test split; found test, train"):
        load("event_folder", tmp_path, image_size=16, classes=3, test_folder="session_z")
    with pytest.raises(UserError, match=r"lasts 3.0 ms, less than one window of 5.0 ms"):
        load("event_folder", tmp_path, image_size=16, classes=3, window_ms=5)
    made.write(tmp_path / "event_folder/train/dog/0.bin", made.bin_bytes(made.recording(0)))
    with pytest.raises(UserError, match=r"the class dog has no recording in the test split"):
        load("event_folder", tmp_path, image_size=16, classes=4)
    made.write(tmp_path / "event_folder/test/eel/0.bin", made.bin_bytes(made.recording(0)))
    with pytest.raises(UserError, match=r"No training recording is left for the class eel"):
        load("event_folder", tmp_path, image_size=16, classes=5, on_bad_file="skip")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"resize": "tet", "count_scale": 255.0}, "resize=tet gives frames in the range 0 to 1"),
        ({"window_ms": 1e-4}, "window_ms"),
        ({"window_ms": 1e38}, "window_ms"),
        ({"window_ms": 5, "stride_ms": 1e38}, "stride_ms"),
        ({"test_folder": "train"}, "must differ: they are train, val, train"),
    ],
)
def test_options_that_would_go_wrong_are_refused(tmp_path: Path, options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        source("event_folder", tmp_path, image_size=16, classes=3, **options)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nmnist", "garrickorchard.com"),
        ("ncaltech101", "garrickorchard.com"),
        ("cifar10dvs", "figshare.com"),
        ("dvs_gesture", "research.ibm.com"),
        ("event_folder", "event_folder/train/<class>/"),
        ("cifar10dvs_sim", "cifar-10-python.tar.gz"),
    ],
)
def test_without_files_the_error_says_what_to_put_where(tmp_path: Path, name: str, said: str) -> None:
    options: dict[str, Any] = {"image_size": 16, "classes": 3} if name == "event_folder" else {}
    with pytest.raises(UserError) as error:
        load(name, tmp_path, **options)
    assert said in str(error.value)
    assert f"data_dir={tmp_path}" in str(error.value)
    assert "dataset.source=" in str(error.value)


def test_download_puts_whole_files_in_place_and_nothing_else(tmp_path: Path) -> None:
    """From a server on this machine; the second file has the wrong checksum."""
    import functools
    import hashlib
    import threading
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

    made.write_nmnist(tmp_path / "files")
    (tmp_path / "site").mkdir()
    for split in ("Train", "Test"):
        pack(tmp_path / "files" / split, tmp_path / f"site/{split}.zip", f"{split}/")
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "site"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sums = {name: hashlib.md5((tmp_path / f"site/{name}.zip").read_bytes()).hexdigest() for name in ("Train", "Test")}

    class Local(NMnist):
        wrong = "0" * 32

        def remote_files(self) -> tuple[RemoteFile, ...]:
            url = f"http://127.0.0.1:{server.server_port}"
            test = self.wrong or sums["Test"]
            files = (("Train", sums["Train"]), ("Test", test))
            return tuple(RemoteFile(f"{url}/{name}.zip", md5, f"{name}.zip") for name, md5 in files)

    local = Local(NMnist.Config(name="nmnist", classes=3, download=True), 4, tmp_path)  # type: ignore[arg-type]
    local.prepare_workers = 1
    try:
        with pytest.raises(UserError, match=r"Test.zip could not be downloaded"):
            local.load()
        assert not (tmp_path / "NMNIST").exists()
        Local.wrong = ""
        assert len(local.load().names) == 18
        assert sorted(path.name for path in (tmp_path / "NMNIST").iterdir()) == ["Test.zip", "Train.zip"]
        assert not list(tmp_path.glob(".*"))
    finally:
        server.shutdown()
        server.server_close()


def test_prepared_frames_outlive_their_files(tmp_path: Path) -> None:
    made.write_nmnist(tmp_path / "NMNIST")
    first = load("nmnist", tmp_path, classes=3)
    (tmp_path / "NMNIST").rename(tmp_path / "elsewhere")
    assert load("nmnist", tmp_path, classes=3).names[0] == first.names[0]
    with pytest.raises(UserError, match="N-MNIST was not found"):
        load("nmnist", tmp_path, classes=3, binning="binary")


def test_each_option_that_shapes_the_frames_makes_another_set(tmp_path: Path) -> None:
    made.write_cifar10dvs(tmp_path / "CIFAR10DVS", classes=1, per_class=2)
    base: dict[str, Any] = {"classes": 1, "image_size": 16, "folds": 2, "val_fraction": 0.0}
    changes: list[dict[str, Any]] = [
        {},
        {"image_size": 24},
        {"bins": "equal_time"},
        {"binning": "binary"},
        {"resize": "tet"},
        {"window_ms": 1},
        {"window_ms": 1, "stride_ms": 0.5},
    ]
    for change in changes:
        load("cifar10dvs", tmp_path, **base | change)
    load("cifar10dvs", tmp_path, time_steps=2, **base)
    assert len(list((tmp_path / "prepared").glob("cifar10dvs-????????????????"))) == len(changes) + 1
    load("cifar10dvs", tmp_path, **base | {"normalize": "peak"})
    assert len(list((tmp_path / "prepared").glob("cifar10dvs-????????????????"))) == len(changes) + 1


def test_the_real_archives(shared_data: Path, tmp_path: Path) -> None:
    """Every event of the windows of a real recording, and the number of files, are in the prepared sets."""
    objects = load(
        "event_folder",
        tmp_path,
        source=str(shared_data / "dvs128_objects.zip"),
        **SESSIONS | {"classes": 5, "window_ms": 500},
    )
    with zipfile.ZipFile(shared_data / "dvs128_objects.zip") as archive:
        from gradspike.data.events.recordings import read_recording

        events = read_recording("Caixa.aedat", archive.read("session_a/Caixa.aedat"))
    of_one = [i for i in range(len(objects.names)) if objects.names[i].startswith("session_a/Caixa")]
    last = events.t[0] + 500_000 * len(of_one)
    counted = sum(int(objects.inputs[i].sum(dtype=np.int64)) for i in of_one)
    assert counted == (events.t < last).sum()
    assert events.t[-1] - last < 500_000
    assert len(objects.indices("val")) >= 5


@pytest.mark.parametrize(
    ("microseconds", "text"), [(0, "0.0"), (500_000, "0.5"), (12_250_000, "12.25"), (1, "0.000001"), (3_000_000, "3.0")]
)
def test_seconds_have_the_decimals_they_need(microseconds: int, text: str) -> None:
    assert seconds(microseconds) == text


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


def test_recordings_beside_ready_frames_are_not_passed_over(tmp_path: Path) -> None:
    made.write_ready_frames(tmp_path / "both")
    made.write_cifar10dvs(tmp_path / "both", classes=1, per_class=2)
    with pytest.raises(
        UserError, match=r"contains 2 recordings, for example .*cifar10_airplane_0.aedat, and 13 files of ready frames"
    ):
        load("cifar10dvs", tmp_path, source=str(tmp_path / "both"), resize="tet")


def test_names_that_are_not_utf_8_are_read_and_printed(tmp_path: Path) -> None:
    """Latin-1, as an old archive unpacks to; the class, the recordings and split.csv keep their bytes."""
    import os

    from helpers.command import command

    for split in (b"train", b"test"):
        for number in range(3):
            folder = os.fsencode(tmp_path) + b"/event_folder/" + split + b"/caf\xe9"
            os.makedirs(folder, exist_ok=True)
            with open(folder + b"/n\xff%d.npz" % number, "wb") as file:
                file.write(made.npz_bytes(made.recording(number)))
    options = ["dataset.classes=1", "dataset.image_size=16", "dataset.sensor_size=34", f"data_dir={tmp_path}"]
    finished = command("prepare", "dataset=event_folder", *options, "workers=1")
    assert finished.returncode == 0, finished.stderr
    assert "classes    1: caf" in finished.stdout
    samples = load("event_folder", tmp_path, time_steps=10, classes=1, image_size=16, sensor_size=34)
    assert os.fsencode(samples.names[0]) == b"test/caf\xe9/n\xff0.npz"
    (record,) = (tmp_path / "prepared").glob("event_folder-split-*/split.csv")
    assert b"test/caf\xe9/n\xff0.npz,0,test" in record.read_bytes()


def test_a_zip_with_backslashes_is_read_as_one_with_slashes(tmp_path: Path) -> None:
    written = made.write_nmnist(tmp_path / "files")
    with zipfile.ZipFile(tmp_path / "windows.zip", "w") as archive:
        for name in written:
            archive.writestr(name.replace("/", "\\"), (tmp_path / "files" / name).read_bytes())
    samples = load("nmnist", tmp_path, source=str(tmp_path / "windows.zip"), classes=3)
    assert list(samples.names) == sorted(written)
    for index, name in enumerate(samples.names):
        assert (samples.inputs[index] == to_frames(written[name], (34, 34), 4, "equal_time")).all()
