"""Bits flipped on disk after preparation are detected when the data set is opened, and it is prepared again."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gradspike.data.datamodule import DataModule
from gradspike.data.options.events import DigitsEventsConfig
from gradspike.data.options.pictures import Cifar10Config, DigitsConfig
from gradspike.data.prepared import digests
from gradspike.data.prepared.cache import prepared
from gradspike.data.prepared.digests import DamagedError, trusting
from gradspike.data.prepared.stored import open_folder
from gradspike.data.sets.cifar import Cifar
from gradspike.data.sets.digits_events import DigitsEvents
from gradspike.errors import UserError
from helpers.command import command
from helpers.data_samples import write_class_folders


def flip(path: Path, place: int, bit: int = 0) -> None:
    """Flip one bit; place: of its byte, from the end if negative."""
    with path.open("r+b") as file:
        file.seek(place, os.SEEK_END if place < 0 else os.SEEK_SET)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1 << bit]))


def build(folder: Path) -> dict[str, Any]:
    np.save(folder / "inputs.npy", np.arange(100_000))
    np.save(folder / "labels.npy", np.arange(100) % 10)
    return {"mean": [0.5], "class_names": ["ant", "bee"]}


def set_of(data_dir: Path) -> Path:
    return prepared(data_dir, "set", {"version": 1}, build).folder


@pytest.mark.parametrize("array", ["inputs", "labels"])
@pytest.mark.parametrize("place", [200, 777, -1])
@pytest.mark.parametrize("bit", [0, 7])
def test_any_flipped_bit_of_a_small_set_is_found(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, array: str, place: int, bit: int
) -> None:
    folder = set_of(tmp_path)
    whole = (folder / f"{array}.npy").read_bytes()
    flip(folder / f"{array}.npy", place, bit)
    with pytest.raises(
        DamagedError, match=rf"^{array}\.npy: part 1 of 1 \(bytes 0 to {len(whole) - 1:,}\) does not match"
    ):
        open_folder(folder)
    again = set_of(tmp_path)
    assert f"The prepared set in {folder} is damaged ({array}.npy: part 1 of 1" in caplog.text
    assert (again / f"{array}.npy").read_bytes() == whole


def test_hundreds_of_flips_are_found(tmp_path: Path) -> None:
    folder = set_of(tmp_path)
    draw = random.Random(1)
    for _ in range(200):
        path = folder / draw.choice(["inputs.npy", "labels.npy"])
        place, bit = draw.randrange(path.stat().st_size), draw.randrange(8)
        flip(path, place, bit)
        with pytest.raises(DamagedError):
            open_folder(folder)
        flip(path, place, bit)
    open_folder(folder)


@pytest.mark.parametrize("text", ['"bee"', "0.5", '"ant"', '"version": 1'])
def test_a_flipped_bit_in_the_facts_is_found(tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str) -> None:
    """The names of the classes, and the mean that normalises every image."""
    meta = set_of(tmp_path) / "meta.json"
    before = meta.read_text()
    assert text in before
    flip(meta, before.index(text) + len(text.rstrip('"')) - 1)
    json.loads(meta.read_text())
    set_of(tmp_path)
    assert "is damaged" in caplog.text
    assert meta.read_text() == before


def test_a_large_set_is_sampled_elsewhere_at_each_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "PART_BYTES", 1000)
    monkeypatch.setattr(digests, "WHOLE_BYTES", 100_000)
    monkeypatch.setattr(digests, "WHOLE_ARRAY_BYTES", 10_000)
    folder = set_of(tmp_path)
    read: list[tuple[str, int]] = []
    compare_part = digests._compare_part

    def noted(path: Path, record: Any, part: int) -> None:
        read.append((path.stem, part))
        compare_part(path, record, part)

    monkeypatch.setattr(digests, "_compare_part", noted)
    starts = []
    for _ in range(2):
        digests._compared.clear()
        read.clear()
        open_folder(folder)
        assert read.count(("labels", 0)) == 1, "small arrays are compared as a whole"
        assert sum(name == "inputs" for name, _ in read) == digests.SAMPLED
        starts.append(set(read))
    assert starts[0] != starts[1]
    flip(folder / "inputs.npy", 500_500)
    found = []
    for _ in range(3000):
        digests._compared.clear()
        try:
            open_folder(folder)
        except DamagedError as error:
            found.append(str(error))
    assert 0 < len(found) < 120, "8 of 801 parts: about 30"
    assert set(found) == {"inputs.npy: part 501 of 801 (bytes 500,000 to 500,999) does not match its checksum"}


def test_sampling_leaves_the_random_numbers_of_training_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "PART_BYTES", 1000)
    monkeypatch.setattr(digests, "WHOLE_BYTES", 1000)
    folder = set_of(tmp_path)
    digests._compared.clear()
    random.seed(3)
    expected = random.Random(3).random()
    open_folder(folder)
    assert random.random() == expected


def test_an_unchanged_set_is_compared_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = set_of(tmp_path)
    count = []
    monkeypatch.setattr(digests, "_compare_part", lambda *arguments: count.append(arguments))
    open_folder(folder)
    assert not count
    digests._compared.clear()
    open_folder(folder)
    open_folder(folder)
    assert len(count) == 2, "one part of each array"


def without_parts(folder: Path) -> None:
    """As an earlier version wrote it."""
    meta = json.loads((folder / "meta.json").read_text())
    del meta["digest"]
    for record in meta["arrays"].values():
        del record["crc32"]
    (folder / "meta.json").write_text(json.dumps(meta))


def test_small_sets_of_earlier_versions_are_compared_by_their_sha256(tmp_path: Path) -> None:
    folder = set_of(tmp_path)
    without_parts(folder)
    open_folder(folder)
    flip(folder / "inputs.npy", 5000)
    with pytest.raises(DamagedError, match=r"inputs\.npy does not have its recorded checksum"):
        open_folder(folder)


def test_large_sets_of_earlier_versions_say_once_that_they_cannot_be_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = set_of(tmp_path)
    without_parts(folder)
    monkeypatch.setattr(digests, "WHOLE_BYTES", 100_000)
    monkeypatch.setattr(digests, "WHOLE_ARRAY_BYTES", 10_000)
    digests._compared.clear()
    with caplog.at_level("INFO"):
        open_folder(folder)
        open_folder(folder)
    assert caplog.text.count("was prepared by an earlier version, which stored no checksums of its parts") == 1


def test_a_rank_that_does_not_prepare_trusts_the_one_that_does(tmp_path: Path) -> None:
    folder = set_of(tmp_path)
    flip(folder / "inputs.npy", 5000)
    with trusting():
        open_folder(folder)
    with pytest.raises(DamagedError):
        open_folder(folder)


# Whole data sets.


def test_training_on_digits_with_a_flipped_pixel_begins_with_preparing_them_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = DataModule(DigitsConfig(), 4, 0, tmp_path)
    data.prepare_data()
    (inputs,) = (tmp_path / "prepared").glob("digits-*/inputs.npy")
    before = inputs.read_bytes()
    flip(inputs, 5000, 3)
    again = DataModule(DigitsConfig(), 4, 0, tmp_path)
    again.prepare_data()
    again.setup()
    assert "inputs.npy: part 1 of 1" in caplog.text
    assert inputs.read_bytes() == before


def test_events_that_frames_are_made_of_are_compared_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = DigitsEvents(DigitsEventsConfig(), 2, tmp_path)
    events = source.load_events().folder
    before = (events / "x.npy").read_bytes()
    flip(events / "x.npy", 400)
    source.load()
    assert "x.npy: part 1 of 2" in caplog.text
    assert (events / "x.npy").read_bytes() == before


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    write_class_folders(tmp_path / "pets")
    return tmp_path / "pets"


def cifar(data_dir: Path, source: Path) -> Cifar:
    made = Cifar(Cifar10Config(source=str(source), classes=3), 4, data_dir)
    made.prepare_workers = 1
    return made


def test_a_split_that_flipped_is_drawn_again(tmp_path: Path, pets: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Otherwise a test image would be in the training split."""
    before = np.array(cifar(tmp_path, pets).load().splits)
    (splits,) = (tmp_path / "prepared").glob("cifar10-split-*/splits.npy")
    flip(splits, -1, 1)
    assert (cifar(tmp_path, pets).load().splits == before).all()
    assert "splits.npy: part 1 of 1" in caplog.text


def test_a_damaged_set_without_its_files_names_the_part_and_the_command(tmp_path: Path, pets: Path) -> None:
    folder = cifar(tmp_path, pets).load().folder
    assert folder is not None
    shutil.rmtree(pets)
    cifar(tmp_path, pets).load()
    flip(folder / "inputs.npy", 3000)
    with pytest.raises(UserError) as error:
        cifar(tmp_path, pets).load()
    message = str(error.value)
    assert f"The prepared set in {folder} is damaged (inputs.npy: part 1 of 1 (bytes 0 to " in message
    assert f"{pets} does not exist" in message
    assert "gradspike prepare dataset=cifar10" in message
    assert f"data_dir={tmp_path}" in message
    assert f"dataset.source={pets}" in message
    assert "dataset.classes=3" in message


def test_verify_reports_damage_of_the_set_and_of_its_split(tmp_path: Path, pets: Path) -> None:
    words = ["dataset=cifar10", f"dataset.source={pets}", "dataset.classes=3", f"data_dir={tmp_path}", "workers=1"]
    cifar(tmp_path, pets).load()
    (splits,) = (tmp_path / "prepared").glob("cifar10-split-*/splits.npy")
    flip(splits, -1, 1)
    result = command("prepare", *words, "verify=true", "time_steps=4", "recipe=none")
    assert result.returncode == 1
    assert f"{splits.parent} is damaged: splits.npy" in result.stderr
