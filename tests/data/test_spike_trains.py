"""SHD and SSC: spike trains in HDF5 files become counts per time step and channel."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from gradspike.__main__ import main
from gradspike.data.events.kept import kept_facts
from gradspike.data.options.spikes import ShdConfig, SpikeTrainAugmentConfig
from gradspike.data.preview import draw_preview
from gradspike.data.registry import DATASETS
from gradspike.data.source import SPLITS, Samples
from gradspike.data.spikes.counts import SpikeCounts
from gradspike.errors import ConfigError, UserError
from helpers import spike_samples as made
from helpers.data_samples import pack
from helpers.killed_preparation import FINISHED, kill_preparation


def load(name: str, data_dir: Path, source: Path, time_steps: int = 5, **options: Any) -> Samples:
    config = DATASETS.config_class(name)(name=name, source=str(source), classes=3, **options)
    opened = DATASETS.implementation(name)(config, time_steps, data_dir)
    opened.prepare_workers = 1
    samples: Samples = opened.load()
    return samples


def slow_counts(spikes: made.Train, time_steps: int, window: float, pool: int) -> np.ndarray:
    """Spike by spike."""
    counts = np.zeros((time_steps, 700 // pool, 1, 1), dtype=int)
    for second, unit in zip(*spikes, strict=True):
        if float(second) < window:
            counts[math.floor(float(second) * time_steps / window), int(unit) // pool] += 1
    return counts


def facts(samples: Samples) -> dict[str, Any]:
    assert samples.folder is not None
    found: dict[str, Any] = json.loads((samples.folder / "meta.json").read_text())["facts"]
    return found


@pytest.mark.parametrize(("name", "pool"), [("shd", 1), ("shd", 5), ("ssc", 7)])
def test_counts_labels_and_splits_are_those_of_the_files(tmp_path: Path, name: str, pool: int) -> None:
    written = made.write_spikes(tmp_path / "files", name)
    samples = load(name, tmp_path, tmp_path / "files", window_s=1.0, pool_channels=pool)
    assert samples.inputs.dtype == np.uint8
    assert samples.class_names == made.CLASSES
    splits = {file: file.removesuffix(".h5").partition("_")[2].replace("valid", "val") for file in made.SPLITS[name]}
    for index, sample in enumerate(samples.names):
        file, number = sample.split("/")
        assert (samples.inputs[index] == slow_counts(written[file][int(number)], 5, 1.0, pool)).all()
        assert samples.labels[index] == int(number) % 3
        if splits[file] != "train" or name == "ssc":
            assert SPLITS[samples.splits[index]] == splits[file]
    assert len(samples.labels) == 12 * len(made.SPLITS[name])


def test_tonic_finds_the_same_spikes(tmp_path: Path) -> None:
    import h5py
    from tonic.datasets import SHD

    made.write_spikes(tmp_path / "files")
    samples = load("shd", tmp_path, tmp_path / "files", time_steps=10, window_s=1.0)
    theirs = SHD.__new__(SHD)
    theirs.location_on_system, theirs.data_filename = str(tmp_path / "files"), "shd_test.h5"
    theirs.transform = theirs.target_transform = None
    test = samples.indices("test")
    with h5py.File(tmp_path / "files/shd_test.h5") as file:
        assert len(test) == len(theirs) == len(file["labels"])
    for number, index in enumerate(test.tolist()):
        events, label = theirs[number]
        assert label == samples.labels[index]
        units, counts = np.unique(events["x"], return_counts=True)
        assert samples.inputs[index][:, units, 0, 0].sum(axis=0).tolist() == counts.tolist()
        assert samples.inputs[index].sum() == len(events)


def test_validation_holds_out_whole_speakers(tmp_path: Path) -> None:
    made.write_spikes(tmp_path / "files")
    samples = load("shd", tmp_path, tmp_path / "files")
    speaker = np.array([int(name.split("/")[1]) // 3 % 4 for name in samples.names])
    held_out, kept = (set(speaker[samples.indices(split)].tolist()) for split in ("val", "train"))
    assert len(held_out) == 1
    assert held_out | kept == {0, 1, 2, 3}
    assert not held_out & kept
    assert not len(load("shd", tmp_path, tmp_path / "files", val_fraction=0).indices("val"))


def test_archives_of_single_files_give_the_same_samples(tmp_path: Path) -> None:
    made.write_spikes(tmp_path / "files")
    pack(tmp_path / "files", tmp_path / "all.zip", "SHD/")
    (tmp_path / "each").mkdir()
    for file in made.SPLITS["shd"]:
        (tmp_path / "one").mkdir(exist_ok=True)
        (tmp_path / "one" / file).write_bytes((tmp_path / "files" / file).read_bytes())
        pack(tmp_path / "one", tmp_path / f"each/{file}.zip")
        (tmp_path / "one" / file).unlink()
    plain = load("shd", tmp_path, tmp_path / "files")
    for other in ("all.zip", "each"):
        again = load("shd", tmp_path, tmp_path / other)
        assert (np.asarray(again.inputs) == np.asarray(plain.inputs)).all()
        assert again.names[0] == plain.names[0]
        assert not list((tmp_path / "prepared").rglob("*.h5"))


def test_spikes_after_the_window_are_counted_and_too_many_refused(tmp_path: Path) -> None:
    written = made.write_spikes(tmp_path / "files")
    spikes = [spikes for trains in written.values() for spikes in trains]
    late = sum(int((times >= 0.87).sum()) for times, _ in spikes)
    assert late > 0
    samples = load("shd", tmp_path, tmp_path / "files", window_s=0.87, max_left_out=0.2)
    assert facts(samples)["kept"] == kept_facts("spikes", 80 * len(spikes) - late, late)
    assert int(np.asarray(samples.inputs).sum()) == 80 * len(spikes) - late
    with pytest.raises(UserError, match=r"shd_train.h5\[\d+\]: has .* after dataset.window_s=0.4.*Raise window_s"):
        load("shd", tmp_path, tmp_path / "files", window_s=0.4)


def test_many_spikes_in_a_step_are_not_cut(tmp_path: Path) -> None:
    made.write_spikes(tmp_path / "files")
    trains = [(np.zeros(300, dtype=np.float16), np.full(300, 7, dtype=np.uint16))] * 3
    made.write_h5(tmp_path / "files/shd_test.h5", trains, [0, 1, 2], [0, 0, 0])
    samples = load("shd", tmp_path, tmp_path / "files")
    assert samples.inputs[samples.indices("test")[0], 0, 7] == 300
    binary = load("shd", tmp_path, tmp_path / "files", binning="binary")
    assert np.unique(np.asarray(binary.inputs)).tolist() == [0, 1]


def spikes_with(times: list[float], units: list[int]) -> list[made.Train]:
    good = [made.train(9, label) for label in range(3)]
    return [*good, (np.array(times, dtype=np.float16), np.array(units, dtype=np.uint16))]


@pytest.mark.parametrize(
    ("times", "units", "problem"),
    [
        ([0.1, 0.2], [3, 700], "has 1 spike of unit 700; units are 0 to 699"),
        ([-0.25, 0.2], [3, 4], "has a time before the start: -0.25 s"),
        ([0.1, math.nan], [3, 4], "has NaN or infinity in 1 time"),
        ([0.1, math.inf], [3, 4], "has NaN or infinity in 1 time"),
        ([0.1, 0.3, 0.2], [3, 4, 5], "has 1 spike out of order, the first at 2; add dataset.on_disorder=sort"),
        ([0.1, 0.2], [3], "has 2 times and 1 unit"),
        ([], [], "contains no spikes"),
    ],
)
def test_recordings_that_cannot_be_are_refused(
    tmp_path: Path, times: list[float], units: list[int], problem: str
) -> None:
    made.write_spikes(tmp_path / "files")
    made.write_h5(tmp_path / "files/shd_test.h5", spikes_with(times, units), [0, 1, 2, 1], [0] * 4)
    with pytest.raises(UserError, match=rf"shd_test.h5\[3\]: {problem}"):
        load("shd", tmp_path, tmp_path / "files")
    skipped = load("shd", tmp_path, tmp_path / "files", on_bad_file="skip")
    assert len(skipped.indices("test")) == 3
    assert facts(skipped)["bad"][0][0].endswith("shd_test.h5[3]")


def test_sorting_counts_what_was_out_of_order(tmp_path: Path) -> None:
    made.write_spikes(tmp_path / "files")
    trains = spikes_with([0.1, 0.3, 0.2, 0.25, 0.4], [3, 4, 5, 6, 7])
    made.write_h5(tmp_path / "files/shd_test.h5", trains, [0, 1, 2, 1], [0] * 4)
    samples = load("shd", tmp_path, tmp_path / "files", on_disorder="sort", window_s=1.0)
    assert facts(samples)["kept"]["disordered"] == 2
    assert (samples.inputs[samples.indices("test")[3]] == slow_counts(trains[3], 5, 1.0, 1)).all()


def no_units(file: Any) -> None:
    del file["spikes/units"]


def fixed_length(file: Any) -> None:
    del file["spikes/times"]
    file["spikes/times"] = np.zeros((12, 5))


def fewer_labels(file: Any) -> None:
    del file["labels"]
    file["labels"] = np.zeros(11, dtype=np.uint16)


def fractional_labels(file: Any) -> None:
    del file["labels"]
    file["labels"] = np.zeros(12) + 0.5


def other_names(file: Any) -> None:
    del file["extra/keys"]
    file["extra/keys"] = np.array([b"zero", b"one", b"null"])


def same_names(file: Any) -> None:
    del file["extra/keys"]
    file["extra/keys"] = np.array([b"zero", b"one", b"zero"])


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (no_units, "shd_test.h5 has no spikes/units; it contains .*spikes/times"),
        (fixed_length, "spikes/times has type float64; expected arrays of variable length"),
        (fewer_labels, "spikes/times has 12, spikes/units has 12, labels has 11, extra/speaker has 12 recordings"),
        (fractional_labels, "labels has type float64.*expected whole numbers"),
        (other_names, "shd_train.h5 names the classes zero, null, one, but .*shd_test.h5 zero, one, null"),
        (same_names, "extra/keys names a class twice"),
    ],
)
def test_files_of_another_structure_are_refused(tmp_path: Path, change: Any, problem: str) -> None:
    written = made.write_spikes(tmp_path / "files")
    trains = written["shd_test.h5"]
    made.write_h5(tmp_path / "files/shd_test.h5", trains, [at % 3 for at in range(12)], [0] * 12, change)
    with pytest.raises(UserError, match=problem):
        load("shd", tmp_path, tmp_path / "files")
    assert not list((tmp_path / "prepared").glob("shd-????????????????"))


def test_labels_without_a_class_name_are_refused(tmp_path: Path) -> None:
    written = made.write_spikes(tmp_path / "files")
    made.write_h5(tmp_path / "files/shd_test.h5", written["shd_test.h5"][:4], [0, 1, 2, 3], [0] * 4)
    with pytest.raises(UserError, match=r"shd_test.h5\[3\]: has label 3; labels are 0 to 2"):
        load("shd", tmp_path, tmp_path / "files")
    made.write_h5(tmp_path / "files/shd_test.h5", written["shd_test.h5"][:2], [0, 1], [0] * 2)
    with pytest.raises(UserError, match="the class one has no recording in the test split"):
        load("shd", tmp_path, tmp_path / "files")


@pytest.mark.parametrize(("keep", "problem"), [(0.6, "damaged, incomplete or not HDF5"), (0, "damaged, incomplete")])
def test_truncated_files_are_refused(tmp_path: Path, keep: float, problem: str) -> None:
    made.write_spikes(tmp_path / "files")
    content = (tmp_path / "files/shd_train.h5").read_bytes()
    (tmp_path / "files/shd_train.h5").write_bytes(content[: int(keep * len(content))])
    with pytest.raises(UserError, match=f"shd_train.h5 cannot be read: it is {problem}"):
        load("shd", tmp_path, tmp_path / "files")


def test_missing_and_doubled_files_are_refused(tmp_path: Path) -> None:
    made.write_spikes(tmp_path / "files")
    made.write_spikes(tmp_path / "files/copy")
    with pytest.raises(UserError, match=r"has several files shd_train.h5 for the train split"):
        load("shd", tmp_path, tmp_path / "files")
    with pytest.raises(UserError, match=r"has no file ssc_train.h5 for the train split. Found: .*shd_test.h5"):
        load("ssc", tmp_path, tmp_path / "files/copy")
    source = DATASETS.implementation("shd")(ShdConfig(source=str(tmp_path / "files/copy")), 4, tmp_path)
    with pytest.raises(ConfigError, match=r"has 3 classes .*set dataset.classes=3"):
        source.load()


def test_a_stopped_preparation_goes_on_and_gives_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gradspike.data.spikes import source as spike_source

    monkeypatch.setattr(spike_source, "PART", 5)
    made.write_spikes(tmp_path / "files")
    whole = load("shd", tmp_path / "a", tmp_path / "files") if (tmp_path / "a").mkdir() is None else None
    (tmp_path / "b").mkdir()
    calls: list[int] = []
    original = SpikeCounts.__call__

    def stopping(self: SpikeCounts, trains: Any) -> Any:
        calls.append(len(trains))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(self, trains)

    with monkeypatch.context() as patch:
        patch.setattr(SpikeCounts, "__call__", stopping)
        with pytest.raises(KeyboardInterrupt):
            load("shd", tmp_path / "b", tmp_path / "files")
        again = load("shd", tmp_path / "b", tmp_path / "files")
    assert calls == [5, 5, 5, 5, 5, 4]
    assert whole is not None
    assert (np.asarray(again.inputs) == np.asarray(whole.inputs)).all()
    assert again.digest() == whole.digest()


PREPARE = """
import sys
import time
from pathlib import Path
from gradspike.data.options.spikes import ShdConfig
from gradspike.data.sets.shd import Shd
from gradspike.data.spikes import source
from gradspike.data.spikes.counts import SpikeCounts

source.PART = 5
original, calls = SpikeCounts.__call__, []

def hanging(self, trains):
    calls.append(1)
    if len(calls) > 3:
        time.sleep(600)
    return original(self, trains)

SpikeCounts.__call__ = hanging
opened = Shd(ShdConfig(source=sys.argv[1], classes=3), 5, Path(sys.argv[2]))
opened.prepare_workers = 1
opened.load()
"""


def test_a_killed_preparation_continues_with_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the files are in an archive, from which they are unpacked beside the parts."""
    from gradspike.data.spikes import source as spike_source

    made.write_spikes(tmp_path / "files")
    pack(tmp_path / "files", tmp_path / "SHD.zip")
    for folder in ("killed", "whole"):
        (tmp_path / folder).mkdir()
    kill_preparation(PREPARE, tmp_path / "SHD.zip", tmp_path / "killed", "shd")
    calls: list[int] = []
    original = SpikeCounts.__call__
    monkeypatch.setattr(spike_source, "PART", 5)
    monkeypatch.setattr(SpikeCounts, "__call__", lambda self, trains: (calls.append(1), original(self, trains))[1])
    again = load("shd", tmp_path / "killed", tmp_path / "SHD.zip")
    assert len(calls) == 5 - FINISHED, "finished parts were made again"
    whole = load("shd", tmp_path / "whole", tmp_path / "SHD.zip")
    assert again.folder is not None
    assert whole.folder is not None
    for array in whole.folder.glob("*.npy"):
        assert (again.folder / array.name).read_bytes() == array.read_bytes(), array.name
    assert not list((tmp_path / "killed/prepared").glob(".shd-*.partial"))


@pytest.mark.parametrize(
    "options", [{"pool_channels": 3}, {"pool_channels": 0}, {"window_s": 0}, {"image_size": 2}, {"max_left_out": 2}]
)
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ShdConfig(**options)


@pytest.mark.parametrize("option", [{"shift": 1}, {"flip": True}, {"cutout": 3}])
def test_augmentations_of_pictures_are_refused(option: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="is for images and event frames; spike trains have no rows and columns"):
        SpikeTrainAugmentConfig(**option)


def test_the_contact_sheet_draws_time_and_channels(tmp_path: Path) -> None:
    made.write_spikes(tmp_path / "files")
    config = ShdConfig(source=str(tmp_path / "files"), classes=3)
    samples = DATASETS.implementation("shd")(config, 20, tmp_path).load()
    draw_preview(tmp_path / "sheet.png", config, samples, seed=0)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 400
        assert len(np.unique(np.asarray(sheet.convert("L")))) > 10


def test_a_run_prepares_trains_and_evaluates(tmp_path: Path) -> None:
    """By the commands, on files whose classes are bands of channels."""
    made.write_spikes(tmp_path / "files", of_each=12)
    data = ["dataset=shd", f"dataset.source={tmp_path / 'files'}", "dataset.classes=3", f"data_dir={tmp_path}"]
    words = [*data, "time_steps=10", "dataset.pool_channels=50", "dataset.window_s=1.0", "recipe=none"]
    assert main(["prepare", *words, f"preview={tmp_path / 'sheet.png'}"]) == 0
    training = [
        "engine=eager",
        "model.hidden=[16]",
        "trainer.max_epochs=10",
        "dataset.batch_size=9",
        "optimizer.lr=0.5",
    ]
    assert main(["train", *words, *training, "method=fixed_sg", f"runs_dir={tmp_path / 'runs'}"]) == 0
    (run,) = (tmp_path / "runs").iterdir()
    assert main(["evaluate", f"run={run}", "checkpoint=last"]) == 0
    record = json.loads((run / "evaluation_test.json").read_text())
    assert record["last"]["accuracy"] > 0.8, record


def test_networks_for_pictures_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "dataset=shd", "model=resnet19"]) == 2
    assert (
        "needs rows and columns, but the data set has only channels. Use model=spiking_mlp" in capsys.readouterr().err
    )
