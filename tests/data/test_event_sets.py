"""Event data sets from files: search, split, bad files, options, download, prepared frames."""

from __future__ import annotations

import logging
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from gradspike.data.events.aedat2 import aedat2_bytes
from gradspike.data.events.frames import to_frames
from gradspike.data.events.listing import RemoteFile
from gradspike.data.sets.nmnist import NMnist
from gradspike.errors import ConfigError, UserError
from helpers import event_samples as made
from helpers.data_samples import pack
from helpers.event_sources import SESSIONS, load, source, split_of


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
