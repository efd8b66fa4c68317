"""Files that are not samples: known companions are left out and counted, all others are bad files."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from gradspike.data.events.source import EventSource
from gradspike.data.files.companions import is_companion
from gradspike.data.options.pictures import Cifar10Config, Cifar100Config, ImageFolderConfig, TinyImageNetConfig
from gradspike.data.registry import DATASETS
from gradspike.data.sets.cifar import Cifar
from gradspike.data.sets.image_folder import ImageFolder
from gradspike.data.sets.tiny_imagenet import TinyImageNet
from gradspike.data.source import Samples
from gradspike.errors import UserError
from helpers import event_samples as made
from helpers.command import command
from helpers.data_samples import encoded, pack, pixels, write_cifar_pickles, write_class_folders, write_tiny_imagenet

COMPANIONS = [
    "README",
    "README.md",
    "readme.TXT",
    "train/README",
    "train/LICENSE",
    "train/ant/Licence.rst",
    "train/annotations.csv",
    "train/annotations/0.xml",
    "train/ant/0.txt",
    "train/bee/labels.json",
    "test/COPYING",
    "test/ant/notes.TXT",
    "test/ant/deeper/Thing.PDF",
    "docs/format.html",
]


def add(folder: Path, names: list[str]) -> None:
    for name in names:
        made.write(folder / name, b"words")


def left_out(samples: Samples) -> dict[str, int]:
    assert samples.folder is not None
    counts: dict[str, int] = json.loads((samples.folder / "meta.json").read_text())["facts"]["left_out"]
    return counts


def events(name: str, data_dir: Path, source: Path, **options: Any) -> Samples:
    config = DATASETS.config_class(name)(name=name, source=str(source), image_size=16, **options)
    opened: EventSource[Any] = DATASETS.implementation(name)(config, 4, data_dir)
    opened.prepare_workers = 1
    return opened.load()


def images(data_dir: Path, source: Path) -> Samples:
    opened = ImageFolder(ImageFolderConfig(source=str(source), image_size=16, classes=3), 1, data_dir)
    opened.prepare_workers = 1
    return opened.load()


COUNTED = {
    "README": 1,
    "README.md": 1,
    "readme.TXT": 1,
    "docs/**/*.html": 1,
    "test/**/*": 1,
    "test/**/*.PDF": 1,
    "test/**/*.TXT": 1,
    "train/**/*": 2,
    "train/**/*.csv": 1,
    "train/**/*.json": 1,
    "train/**/*.rst": 1,
    "train/**/*.txt": 1,
    "train/**/*.xml": 1,
}


@pytest.mark.parametrize("kind", ["events", "pictures"])
@pytest.mark.parametrize("ending", ["", ".zip", ".tar.gz"])
def test_companions_in_splits_and_classes_are_left_out_counted_and_named_once(
    tmp_path: Path, kind: str, ending: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "files"
    if kind == "events":
        made.write_event_folder(folder)
    else:
        write_class_folders(folder, size=16)
    alone = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    add(folder, COMPANIONS)
    source = pack(folder, tmp_path / f"packed{ending}", "top/") if ending else folder
    with caplog.at_level("INFO"):
        samples = (
            images(tmp_path, source)
            if kind == "pictures"
            else events("event_folder", tmp_path, source, classes=3, on_bad_file="skip")
        )
    assert samples.class_names == ("ant", "bee", "cat")
    assert set(samples.names) <= alone
    assert len(samples.names) == len(alone)
    assert left_out(samples) == COUNTED
    assert caplog.text.count("Left out, because they are not samples: train/**/* (2), ") == 1


def test_the_summary_names_them(tmp_path: Path) -> None:
    made.write_event_folder(tmp_path / "event_folder")
    add(tmp_path / "event_folder", ["train/README.txt"])
    options = ["dataset.classes=3", "dataset.image_size=16", f"data_dir={tmp_path}", "workers=1"]
    finished = command("prepare", "dataset=event_folder", *options)
    assert finished.returncode == 0, finished.stderr
    assert re.search(r"^no sample +train/\*\*/\*\.txt \(1\)$", finished.stdout, re.MULTILINE)


def test_one_recording_a_class_with_companions(tmp_path: Path) -> None:
    """Also in a folder beside the recordings: the location of the samples determines the layout."""
    for session in ("session_a", "session_b"):
        for number, name in enumerate(("Caixa", "Caneca")):
            made.write(tmp_path / f"s/{session}/{name}.aedat", made.aedat2_bytes(made.recording(number, size=128)))
        add(tmp_path / "s", [f"{session}/notes.txt", f"{session}/docs/README.md"])
    folders = {"train_folder": "session_a", "test_folder": "session_b"}
    samples = events("event_folder", tmp_path, tmp_path / "s", classes=2, val_fraction=0.0, **folders)
    assert samples.class_names == ("Caixa", "Caneca")
    assert left_out(samples) == {f"session_{one}/**/*.{ending}": 1 for one in "ab" for ending in ("md", "txt")}


@pytest.mark.parametrize(
    "name", ["train/ant/x.h5", "train/ant/x.raw", "test/bee/x.gif", "train/ant/noending", "test/x.avi"]
)
def test_other_files_are_still_refused(tmp_path: Path, name: str) -> None:
    """They may be samples in an unsupported format."""
    made.write_event_folder(tmp_path / "e")
    write_class_folders(tmp_path / "p", size=16)
    add(tmp_path / "e", [name])
    add(tmp_path / "p", [name])
    with pytest.raises(
        UserError, match=rf"^1 unusable file:\n.*{name}: (has none of the extensions|is not in a class folder)"
    ):
        events("event_folder", tmp_path, tmp_path / "e", classes=3)
    with pytest.raises(
        UserError, match=rf"^1 unusable file:\n.*{name}: (has none of the extensions|is not in a class folder)"
    ):
        images(tmp_path, tmp_path / "p")


def test_a_sample_is_no_companion_by_its_name() -> None:
    assert not is_companion("train/readme.png", (".png",))
    assert not is_companion("license.aedat", (".aedat",))
    assert not is_companion("readme.h5", (".png",))
    assert not is_companion("read", (".png",))
    assert is_companion("ReadMe", (".png",))


def test_files_beside_cifar10dvs_are_counted_also_in_its_archives(tmp_path: Path) -> None:
    made.write_cifar10dvs(tmp_path / "plain", classes=2)
    add(tmp_path / "plain", ["airplane/README.txt", "airplane/Thumbs.db", "automobile/list.csv"])
    plain = events("cifar10dvs", tmp_path, tmp_path / "plain", classes=2)
    assert left_out(plain) == {"Thumbs.db": 1, "airplane/**/*.txt": 1, "automobile/**/*.csv": 1}
    (tmp_path / "packed").mkdir()
    for name in ("airplane", "automobile"):
        pack(tmp_path / "plain" / name, tmp_path / f"packed/{name}.zip", f"{name}/")
    add(tmp_path / "packed", ["readme.html"])
    packed = events("cifar10dvs", tmp_path, tmp_path / "packed", classes=2)
    assert list(packed.names) == list(plain.names)
    assert left_out(packed) == {**left_out(plain), "readme.html": 1}


def test_files_beside_gestures_are_counted_and_their_labels_are_not(tmp_path: Path) -> None:
    recorded = made.recording(0, count=300, size=128, duration_us=30_000, start=0)
    for person in (1, 2, 24):
        made.write(tmp_path / f"g/user{person:02d}_led.aedat", made.aedat3_bytes(recorded))
        table = b"class,startTime_usec,endTime_usec\n1,0,30000\n"
        made.write(tmp_path / f"g/user{person:02d}_led_labels.csv", table)
    add(tmp_path / "g", ["README.txt", "trials_to_train.txt", "gesture_mapping.csv"])
    config = DATASETS.config_class("dvs_gesture")(name="dvs_gesture", source=str(tmp_path / "g"), on_bad_file="skip")
    opened: EventSource[Any] = DATASETS.implementation("dvs_gesture")(config, 4, tmp_path)
    assert opened.load_frames().facts["left_out"] == {
        "README.txt": 1,
        "gesture_mapping.csv": 1,
        "trials_to_train.txt": 1,
    }


def test_gestures_left_out_with_ten_classes_are_counted(tmp_path: Path) -> None:
    made.write_dvs_gesture(tmp_path / "g", people=(1, 2, 24))
    samples = events("dvs_gesture", tmp_path, tmp_path / "g", classes=10)
    assert left_out(samples) == {"ibmGestureTest/**/*.npy": 1, "ibmGestureTrain/**/*.npy": 2}


def test_companions_among_tiny_imagenets_pictures(tmp_path: Path) -> None:
    written = write_tiny_imagenet(tmp_path / "t")
    add(tmp_path / "t", ["val/images/README.txt", "train/n01000000/images/README.md", "train/LICENSE"])
    source = TinyImageNet(TinyImageNetConfig(source=str(tmp_path / "t"), classes=3), 4, tmp_path)
    source.prepare_workers = 1
    samples = source.load()
    assert sorted(samples.names) == sorted(written)
    assert left_out(samples)["val/**/*.txt"] == 2


# Where CIFAR's pickles are.


def cifar(data_dir: Path, source: Path, name: str = "cifar10") -> Samples:
    schema = {"cifar10": Cifar10Config, "cifar100": Cifar100Config}[name]
    opened = Cifar(schema(source=str(source), classes=3), 4, data_dir)
    opened.prepare_workers = 1
    return opened.load()


@pytest.mark.parametrize(
    ("name", "stray"),
    [
        ("cifar10", "batches.meta"),
        ("cifar10", "old/batches.meta"),
        ("cifar10", "notes/test_batch"),
        ("cifar100", "meta"),
        ("cifar100", "lists/train"),
        ("cifar100", "lists/test"),
    ],
)
def test_pictures_are_read_beside_a_file_that_is_named_like_a_pickle(tmp_path: Path, name: str, stray: str) -> None:
    written = write_class_folders(tmp_path / "c")
    add(tmp_path / "c", [stray])
    samples = cifar(tmp_path, tmp_path / "c", name)
    assert sorted(samples.names) == sorted(written)
    assert sum(left_out(samples).values()) == 1


@pytest.mark.parametrize("ending", ["", ".tar.gz"])
@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_pickles_are_read_where_all_of_them_are(tmp_path: Path, name: str, ending: str) -> None:
    folder = tmp_path / "c"
    written = write_cifar_pickles(folder / "inner", name)
    add(folder, ["zz/meta", "zz/batches.meta", "zz/test_batch", "zz/test", "meta", "inner/readme.html", "aa/train"])
    samples = cifar(tmp_path, pack(folder, tmp_path / f"c{ending}") if ending else folder, name)
    assert sorted(samples.names) == sorted(written)
    assert sum(left_out(samples).values()) == 7


def test_two_copies_of_cifar_are_not_guessed_between(tmp_path: Path) -> None:
    write_cifar_pickles(tmp_path / "c/new")
    shutil.copytree(tmp_path / "c/new", tmp_path / "c/old")
    with pytest.raises(
        UserError, match=r"contains CIFAR-10 more than once: new/ \(pickles\), old/ \(pickles\)\. Choose"
    ):
        cifar(tmp_path, tmp_path / "c")
    shutil.rmtree(tmp_path / "c/old")
    made.write(tmp_path / "c/train/cat/0.png", encoded(pixels(0)))
    with pytest.raises(UserError, match=r"more than once: new/ \(pickles\), train/cat/0\.png \(images\)"):
        cifar(tmp_path, tmp_path / "c")


def test_other_versions_of_cifar_are_named(tmp_path: Path) -> None:
    write_cifar_pickles(tmp_path / "c")
    with pytest.raises(UserError, match="contains CIFAR-10, not CIFAR-100: use dataset=cifar10"):
        DATASETS.implementation("cifar100")(Cifar100Config(source=str(tmp_path / "c")), 1, tmp_path).load()
    for file in list((tmp_path / "c").iterdir()):
        file.rename(file.with_name(f"{file.name}.bin"))
    with pytest.raises(UserError, match=r"contains the binary version of CIFAR-10\. Download the Python"):
        cifar(tmp_path, tmp_path / "c")


def test_a_broken_link_to_a_batch_is_named(tmp_path: Path) -> None:
    write_cifar_pickles(tmp_path / "c")
    (tmp_path / "c/data_batch_4").unlink()
    (tmp_path / "c/data_batch_4").symlink_to("/nowhere")
    with pytest.raises(UserError, match=r"data_batch_4: cannot be read \(No such file or directory\)"):
        cifar(tmp_path, tmp_path / "c")


def test_a_missing_batch_is_still_named(tmp_path: Path) -> None:
    write_cifar_pickles(tmp_path / "c")
    (tmp_path / "c/data_batch_4").unlink()
    with pytest.raises(UserError, match=r"c/data_batch_4: is missing"):
        cifar(tmp_path, tmp_path / "c")
