"""ES-ImageNet: .npz files of events and lists of labels, prepared as bits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gradspike.__main__ import main
from gradspike.data.datamodule import DataModule
from gradspike.data.options.events import ESImageNetConfig
from gradspike.data.sets.es_imagenet import ESImageNet
from gradspike.data.source import SPLITS, Samples
from gradspike.errors import UserError
from helpers import es_imagenet_samples as made
from helpers.data_samples import pack
from helpers.killed_preparation import FINISHED, kill_preparation


def load(data_dir: Path, source: Path, time_steps: int = 8, **options: Any) -> Samples:
    config = ESImageNetConfig(source=str(source), **{"classes": 3, "val_fraction": 0.25, **options})
    opened = ESImageNet(config, time_steps, data_dir)
    opened.prepare_workers = 1
    return opened.load()


def as_the_authors_load(sample: made.Sample) -> np.ndarray:
    """[ON and OFF, 8, 224, 224], event by event: their loader sets input[0, t, x, y] = 1 for `pos` and crops."""
    pos, neg, _, a, b = sample
    frames = np.zeros((2, 8, 256, 256), dtype=int)
    for channel, events in enumerate((pos, neg)):
        for x, y, t in events.tolist():
            frames[channel, t - 1, x + (254 - a) // 2, y + (254 - b) // 2] = 1
    return frames[:, :, 16:240, 16:240]


def facts(samples: Samples) -> dict[str, Any]:
    assert samples.folder is not None
    found: dict[str, Any] = json.loads((samples.folder / "meta.json").read_text())["facts"]
    return found


def test_frames_labels_and_splits_are_those_of_the_files(tmp_path: Path) -> None:
    written = made.write_es_imagenet(tmp_path / "files")
    (tmp_path / "files/README.md").write_text("about")
    samples = load(tmp_path, tmp_path / "files")
    assert sorted(samples.names) == sorted(written)
    events = ones = 0
    for index, name in enumerate(samples.names):
        frames = samples.inputs[index]
        assert frames.shape == (8, 2, 224, 224)
        assert (frames == as_the_authors_load(written[name])[::-1].swapaxes(0, 1)).all()  # here OFF is channel 0
        assert samples.class_names[samples.labels[index]] == f"class{written[name][2]}"
        assert (SPLITS[samples.splits[index]] == "test") == name.startswith("val/")
        events += sum(len(columns) for columns in written[name][:2])
        ones += int(frames.sum())
    assert len(samples.indices("val")) == 3
    about = facts(samples)
    assert about["kept"]["kept"] + about["kept"]["left_out"] == events
    assert about["kept"]["left_out"] > 100
    assert about["kept"]["kept"] - about["repeated"] == ones
    assert about["left_out"] == {"README.md": 1}
    assert samples.folder is not None
    assert np.load(samples.folder / "bits.npy").nbytes == len(written) * 8 * 2 * 224 * 224 // 8


def test_fewer_time_steps_join_neighbours_and_share_the_prepared_set(tmp_path: Path) -> None:
    made.write_es_imagenet(tmp_path / "files", train=2, val=1)
    whole, joined = (load(tmp_path, tmp_path / "files", steps) for steps in (8, 2))
    assert whole.folder == joined.folder
    chosen = np.array([5, 0, 3])
    expected = whole.inputs[chosen].reshape(3, 2, 4, 2, 224, 224).max(axis=2)
    assert (joined.inputs[chosen] == expected).all()
    assert joined.inputs.shape == (9, 2, 2, 224, 224)
    with pytest.raises(ValueError, match=r"time_steps=3: .* 8 time steps.*choose 1, 2, 4 or 8"):
        ESImageNetConfig().check_time_steps(3)


def test_archives_and_a_part_of_the_classes_work(tmp_path: Path) -> None:
    made.write_es_imagenet(tmp_path / "files", labels=(2, 11, 100), train=2, val=1)
    plain = load(tmp_path, tmp_path / "files")
    assert plain.class_names == ("class2", "class11", "class100")
    pack(tmp_path / "files", tmp_path / "es.tar.gz", "ES-imagenet-0.18/")
    packed = load(tmp_path, tmp_path / "es.tar.gz")
    assert (packed.inputs[np.arange(9)] == plain.inputs[np.arange(9)]).all()
    assert packed.labels.tolist() == plain.labels.tolist()


def test_lists_may_name_the_images(tmp_path: Path) -> None:
    """The authors' loader takes the name up to the first dot, so lists may have the images' extension."""
    made.write_es_imagenet(tmp_path / "files", train=2, val=1)
    for name in ("trainlabel.txt", "vallabel.txt"):
        path = tmp_path / "files" / name
        path.write_bytes(path.read_text().replace(".npz", ".JPEG").replace("\n", "\r\n").encode())
    assert len(load(tmp_path, tmp_path / "files").names) == 9


def events(*rows: tuple[int, int, int]) -> np.ndarray:
    return np.array(rows, dtype=np.uint8).reshape(-1, 3)


GOOD = events((60, 80, 1))
NAME = "train/class1/n00000001_train_1.npz"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", r"is empty \(0 bytes\)"),
        (made.npz(pos=GOOD, neg=GOOD)[:-30], "cannot be read as .npz"),
        (made.npz(pos=GOOD), r"has no array neg \(it has pos\)"),
        (made.npz(pos=GOOD, neg=events()), None),
        (made.npz(pos=events(), neg=events()), "contains no events"),
        (made.npz(pos=GOOD, neg=GOOD[:, :2]), r"neg has type uint8 and shape \(1, 2\)"),
        (made.npz(pos=GOOD, neg=GOOD.astype(float)), "neg has type float64"),
        (made.npz(pos=GOOD, neg=np.array([object()])), "contains pickled objects"),
        (made.npz(pos=events((1, 1, 0)), neg=GOOD), "pos has 1 event of another time step than 1 to 8"),
        (made.npz(pos=GOOD, neg=events((1, 1, 9), (1, 1, 8))), "neg has 1 event of another time step"),
        (made.npz(pos=GOOD, neg=GOOD.astype(np.int16) - 70), "neg has -10 to 10 as rows and columns"),
        (
            made.npz(pos=GOOD, neg=events((3, 250, 1))),
            "neg: 1 event outside 256x256 pixels, the first in row 3, column 250",
        ),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, content: bytes, problem: str | None) -> None:
    made.write_es_imagenet(tmp_path / "files", train=2, val=1)
    (tmp_path / "files" / NAME).write_bytes(content)
    if problem is None:
        assert len(load(tmp_path, tmp_path / "files").names) == 9
        return
    with pytest.raises(UserError, match=rf"{NAME}: ({problem})"):
        load(tmp_path, tmp_path / "files")
    samples = load(tmp_path, tmp_path / "files", on_bad_file="skip")
    assert len(samples.names) == 8
    assert [Path(path).name for path, _ in facts(samples)["bad"]] == [Path(NAME).name]


def test_events_that_the_crop_removes_leave_no_empty_sample(tmp_path: Path) -> None:
    made.write_es_imagenet(tmp_path / "files", train=2, val=1)
    lines = (tmp_path / "files/trainlabel.txt").read_text().splitlines()
    lines[2] = lines[2].rsplit(" ", 2)[0] + " 254 254"
    (tmp_path / "files/trainlabel.txt").write_text("\n".join(lines))
    (tmp_path / "files/train/class1/n00000001_train_0.npz").write_bytes(made.npz(pos=events((15, 99, 2)), neg=events()))
    with pytest.raises(UserError, match="none of its 1 event is in the 224x224 pixels in use"):
        load(tmp_path, tmp_path / "files")


def line(number: int, text: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        lines = (folder / "trainlabel.txt").read_text().splitlines()
        lines[number : number + 1] = [text]
        (folder / "trainlabel.txt").write_text("\n".join(lines))

    return change


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (line(1, "n00000000_train_1.npz 0 254"), "trainlabel.txt, line 2: expected a file name, its label and two"),
        (line(1, "n00000000_train_1.npz 0 254 -1"), "trainlabel.txt, line 2: expected a file name"),
        (line(1, "n00000000_train_1.npz 0 255 9"), "line 2: gives the sizes 255 and 9; they are at most 254"),
        (line(1, "n00000000_train_1.npz 2 254 9"), "line 2: gives .* the label 2, but it is in the folder class0"),
        (line(1, "n00000000_train_0.npz 0 254 171"), "line 2: lists n00000000_train_0.npz twice"),
        (line(1, "elsewhere.npz 0 254 171"), "line 2: lists elsewhere.npz, which is not in train/"),
        (line(1, ""), "n00000000_train_1.npz: is not in trainlabel.txt"),
        (lambda folder: (folder / "train/class0/n.npy").touch(), "n.npy: does not have the extension .npz"),
        (
            lambda folder: (folder / "val/n00000002_val_0.npz").rename(folder / "val/x.npz"),
            "line 3: lists n00000002_val_0.npz, which is not in val/",
        ),
        (
            lambda folder: (folder / NAME).rename(folder / "train/class0/n00000000_train_1.NPZ"),
            "has the same name as .*n00000000_train_1.",
        ),
        (lambda folder: (folder / "vallabel.txt").unlink(), "vallabel.txt is missing: it lists the test split"),
    ],
)
def test_lists_that_do_not_fit_are_refused(tmp_path: Path, change: Callable[[Path], Any], problem: str) -> None:
    made.write_es_imagenet(tmp_path / "files", train=2, val=1)
    change(tmp_path / "files")
    with pytest.raises(UserError, match=problem):
        load(tmp_path, tmp_path / "files")
    assert not list((tmp_path / "prepared").glob("es_imagenet-????????????????"))


def test_packed_downloads_are_pointed_out(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    for number in (1, 2):
        (tmp_path / f"files/ES-imagenet-0.18.part0{number}.rar").touch()
    with pytest.raises(UserError, match=r"trainlabel.txt is missing.*2 archives .*part01.rar.*unpack them"):
        load(tmp_path, tmp_path / "files")
    with pytest.raises(UserError, match="ES-ImageNet was not found"):
        ESImageNet(ESImageNetConfig(), 8, tmp_path).load()


PREPARE = """
import sys
import time
from pathlib import Path
from gradspike.data.options.events import ESImageNetConfig
from gradspike.data.sets import es_imagenet

es_imagenet.PART_SIZE = 2
original, calls = es_imagenet.read_listed, []

def hanging(items, *, files):
    calls.append(1)
    if len(calls) > 3:
        time.sleep(600)
    return original(items, files=files)

es_imagenet.read_listed = hanging
source = es_imagenet.ESImageNet(ESImageNetConfig(source=sys.argv[1], classes=3), 8, Path(sys.argv[2]))
source.prepare_workers = 1
source.load()
"""


def test_a_killed_preparation_continues_with_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gradspike.data.sets import es_imagenet

    made.write_es_imagenet(tmp_path / "files", train=3, val=1)
    for folder in ("killed", "whole"):
        (tmp_path / folder).mkdir()
    kill_preparation(PREPARE, tmp_path / "files", tmp_path / "killed", "es_imagenet")
    calls: list[int] = []
    original = es_imagenet.read_listed
    monkeypatch.setattr(es_imagenet, "PART_SIZE", 2)
    monkeypatch.setattr(
        es_imagenet, "read_listed", lambda items, files: (calls.append(1), original(items, files=files))[1]
    )
    again = load(tmp_path / "killed", tmp_path / "files")
    assert len(calls) == 6 - FINISHED, "finished parts were made again"
    whole = load(tmp_path / "whole", tmp_path / "files")
    assert again.folder is not None
    assert whole.folder is not None
    for array in whole.folder.glob("*.npy"):
        assert (again.folder / array.name).read_bytes() == array.read_bytes(), array.name
    assert not list((tmp_path / "killed/prepared").glob(".es_imagenet-*.partial"))


def test_the_loader_unpacks_on_its_way_and_the_command_prepares(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made.write_es_imagenet(tmp_path / "files")
    source = [f"dataset.source={tmp_path / 'files'}", "dataset.classes=3", f"data_dir={tmp_path}"]
    sheet = tmp_path / "sheet.png"
    assert main(["prepare", "dataset=es_imagenet", *source, f"preview={sheet}", "verify=true", "workers=1"]) == 0
    said = capsys.readouterr().out
    assert "of 8x2x224x224" in said
    assert "events " in said and " left out (" in said  # noqa: PT018
    assert sheet.stat().st_size > 10_000
    config = ESImageNetConfig(source=str(tmp_path / "files"), classes=3, batch_size=4, augment={"flip": False})
    data = DataModule(config, 8, 0, tmp_path)
    data.prepare_data()
    data.setup()
    batch = next(iter(data.train_dataloader()))
    inputs = data.transform(batch["input"], batch["index"], 0)
    assert inputs.shape == (8, 4, 2, 224, 224)
    for place, index in enumerate(batch["index"].tolist()):
        assert (inputs[:, place].numpy() == data.samples.inputs[index]).all()
