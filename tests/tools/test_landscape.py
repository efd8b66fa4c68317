"""The loss surface of a trained network: its centre, its files, and an interrupted command."""

from __future__ import annotations

import csv
import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gradspike.cli.reporting import reporting_errors
from gradspike.config.compose import load_config
from gradspike.data.chosen import choose_samples
from gradspike.errors import UserError
from gradspike.runs.folder import RunFolder
from gradspike.tools.landscape import command as landscape_command
from gradspike.tools.landscape.command import landscape
from gradspike.tools.landscape.numbers import Point
from gradspike.tools.landscape.options import LandscapeConfig
from gradspike.tools.landscape.plot import draw
from gradspike.tools.landscape.points import NAME, PointsFile
from gradspike.tools.landscape.surface import (
    cosine,
    open_surface,
    random_direction,
)
from gradspike.training import run as training
from gradspike.training.checkpoint import state_hash
from gradspike.training.evaluate import evaluate
from gradspike.training.module import SpikingClassifier
from helpers.command import ROOT, TINY
from helpers.landscapes import LABELS, assert_picture, numbers_of
from helpers.limits import no_file_may_grow


@pytest.fixture(scope="module")
def run(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run with thresholds of its own in evaluation (DS-ATGO) and a decay logit (PLIF)."""
    folder = tmp_path_factory.mktemp("runs")
    words = [*TINY, "trainer.max_epochs=1", f"data_dir={data_dir}", f"runs_dir={folder}"]
    return training.train(load_config([*words, "method=ds_atgo", "neuron=plif"]), None, ["test"])[0]


@pytest.fixture
def words(run: RunFolder, tmp_path: Path) -> Callable[..., list[str]]:
    base = {"run": str(run.path), "points": "3", "accelerator": "cpu", "out": str(tmp_path / "out")}

    def arguments(**changes: object) -> list[str]:
        return [f"{key}={value}" for key, value in (base | changes).items()]

    return arguments


def test_only_weights_of_two_or_more_dimensions_move(run: RunFolder) -> None:
    module = SpikingClassifier(run.config())
    direction = random_direction(module.model, torch.Generator().manual_seed(0))
    moving = {name for name, parameter in module.model.named_parameters() if parameter.ndim >= 2}
    assert direction.keys() == moving
    assert any("decay_logit" in name for name, _ in module.model.named_parameters())
    assert {len(tensor.shape) for tensor in direction.values()} == {2, 4}
    other = random_direction(module.model, torch.Generator().manual_seed(1))
    assert cosine(direction, direction) == pytest.approx(1.0)
    assert abs(cosine(direction, other)) < 0.2


@pytest.mark.parametrize("checkpoint", ["last", "best"])
def test_centre_is_what_evaluate_reports(run: RunFolder, words: Callable[..., list[str]], checkpoint: str) -> None:
    path = run.checkpoints / f"{checkpoint}.ckpt"
    before = path.read_bytes()
    assert landscape(words(split="test", checkpoint=checkpoint)) == 0
    expected = evaluate(run, [path], "test", None, "cpu")[checkpoint]
    result = read(words())
    assert result["centre"] == {"loss": expected["loss"], "accuracy": expected["accuracy"]}
    assert result["loss"][1][1] == expected["loss"]
    assert path.read_bytes() == before


def read(arguments: list[str]) -> dict[str, Any]:
    out = next(word for word in arguments if word.startswith("out=")).removeprefix("out=")
    content: dict[str, Any] = json.loads((Path(out) / "landscape.json").read_text())
    return content


def test_files_agree_and_name_everything(words: Callable[..., list[str]], tmp_path: Path) -> None:
    assert landscape(words(samples=20, extent=0.5)) == 0
    result = read(words())
    assert result["alphas"] == result["betas"] == [-0.5, 0.0, 0.5]
    assert result["settings"]["samples"] == result["labels"]["samples"] == 20
    assert abs(result["cosine"]) < 1
    flat = [value for row in result["loss"] for value in row]
    assert len(set(flat)) > 3
    with (tmp_path / "out" / "landscape.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["loss"]) for row in rows] == flat
    assert (float(rows[1]["alpha"]), float(rows[1]["beta"])) == (-0.5, 0.0)
    assert_picture(tmp_path / "out" / "landscape.png")


KILLED = """
import os, signal, sys
from gradspike.tools.landscape.command import landscape
from gradspike.tools.landscape.points import PointsFile
add = PointsFile.add
def add_or_die(self, index, point):
    if len(self.done) == 4:
        self._file.write(b'{"point": 4, "lo')
        self._file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    add(self, index, point)
PointsFile.add = add_or_die
landscape(sys.argv[1:])
"""


def test_a_killed_command_ends_as_an_unbroken_one(
    words: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert landscape(words()) == 0
    broken = words(out=tmp_path / "broken")
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    killed = subprocess.run([sys.executable, "-c", KILLED, *broken], env=environment, capture_output=True, timeout=240)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert sorted(path.name for path in (tmp_path / "broken").iterdir()) == [NAME]
    added: list[int] = []
    monkeypatch.setattr(PointsFile, "add", recording(PointsFile.add, added))
    assert landscape(broken) == 0
    assert added == [4, 5, 6, 7, 8]
    for name in ("landscape.json", "landscape.csv", "landscape.png", NAME):
        assert (tmp_path / "broken" / name).read_bytes() == (tmp_path / "out" / name).read_bytes(), name
    assert landscape(broken) == 0  # finished: nothing is computed again
    assert len(added) == 5
    assert "points 9/9" in capsys.readouterr().out


def recording(add: Callable[..., None], added: list[int]) -> Callable[..., None]:
    def record(self: PointsFile, index: int, point: Point) -> None:
        added.append(index)
        add(self, index, point)

    return record


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": 1}, "seed: was 0, is now 1"),
        ({"points": 5}, "points: was 3, is now 5"),
        ({"samples": 10}, "samples: was null, is now 10"),
        ({"checkpoint": "damaged"}, "checkpoint_sha256"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_other_settings_are_refused(
    change: dict[str, object],
    said: str,
    run: RunFolder,
    words: Callable[..., list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(landscape_command, "_compute", fill)
    assert landscape(words()) == 0
    if "checkpoint" in change:  # trained on since
        change = {}
        content = torch.load(run.last, weights_only=True)
        name = next(iter(content["state_dict"]))
        content["state_dict"][name] = content["state_dict"][name] + 1
        monkeypatch.setattr("gradspike.tools.landscape.surface.load_checkpoint", lambda path: content)
    assert reporting_errors(lambda: landscape(words(**change))) == 1
    error = capsys.readouterr().err
    assert said in error
    assert "restart=true" in error
    assert reporting_errors(lambda: landscape(words(**change, restart="true"))) == 0


def fill(at: object, axis: list[float], file: PointsFile) -> None:
    """Quick stand-in for the evaluations."""
    for index in range(len(axis) ** 2):
        file.add(index, Point(1.0 + index, 0.5))


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    settings = {"seed": 0}
    for text in ("", '{"se'):  # killed before the first point was finished
        (tmp_path / NAME).write_text(text)
        with PointsFile(tmp_path, settings, 9, restart=False) as file:
            file.add(0, Point(None, 0.5))
    whole = (tmp_path / NAME).read_text()
    for line in ("{}", "x", "[1]", '{"point": 9, "loss": 1.0, "accuracy": 0.5}', '{"point": 1, "loss": "a"}'):
        (tmp_path / NAME).write_text(f"{whole}{line}\n")
        with pytest.raises(UserError, match="is damaged"):
            PointsFile(tmp_path, settings, 9, restart=False)
        assert (tmp_path / NAME).read_text() == f"{whole}{line}\n"
    (tmp_path / NAME).write_bytes(b"\x00\xff not ours")
    with pytest.raises(UserError, match="is damaged"):
        PointsFile(tmp_path, settings, 9, restart=False)
    with PointsFile(tmp_path, settings, 9, restart=True) as file:
        assert file.done == {}
        with pytest.raises(UserError, match="another process"):
            PointsFile(tmp_path, settings, 9, restart=False)


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        ({"points": 4}, 2, "4 is even"),
        ({"points": 1}, 2, "greater than or equal to 3"),
        ({"extent": 0}, 2, "extent"),
        ({"extent": "inf"}, 2, "extent"),
        ({"samples": 0}, 2, "samples"),
        ({"split": "all"}, 2, "split"),
        ({"poins": 3}, 2, "Did you mean 'points'?"),
        ({"run": "no/such/run"}, 2, "is not a run folder"),
        ({"samples": 9999}, 2, "samples=9999: the split val has 179 samples."),
        ({"out": os.devnull}, 1, "cannot be written to"),
        ({"data_dir": "/no/such/place"}, 1, "/no/such/place"),
    ],
    ids=lambda value: "=".join(map(str, *value.items())) if isinstance(value, dict) else None,
)
def test_bad_arguments(
    change: dict[str, object],
    code: int,
    said: str,
    words: Callable[..., list[str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert reporting_errors(lambda: landscape(words(**change))) == code
    assert said in capsys.readouterr().err


def test_null_is_the_default() -> None:
    typed = ["run=x", "samples=null", "batch_size=null", "data_dir=null", "out=null"]
    assert landscape_command.COMMAND.parse(typed).options == LandscapeConfig(run="x")


def test_a_run_without_a_checkpoint(
    run: RunFolder, words: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "config.yaml").write_bytes((run.path / "config.yaml").read_bytes())
    assert reporting_errors(lambda: landscape(words(run=bare))) == 1
    assert "unknown checkpoint" in capsys.readouterr().err
    (bare / "checkpoints").mkdir()
    (bare / "checkpoints" / "last.ckpt").write_bytes(run.last.read_bytes()[:1000])
    assert reporting_errors(lambda: landscape(words(run=bare))) == 1
    assert "is damaged" in capsys.readouterr().err


def test_batch_statistics_change_the_numbers_but_no_buffer(run: RunFolder) -> None:
    stored, batch = (
        open_surface(run, run.last, LandscapeConfig(run=str(run.path), norm_statistics=kind, accelerator="cpu")).surface
        for kind in ("stored", "batch")
    )
    before = state_hash(batch.model.state_dict())
    assert batch.at(0.0, 0.0) == batch.at(0.0, 0.0)
    assert batch.at(0.0, 0.0) != stored.at(0.0, 0.0)
    assert state_hash(batch.model.state_dict()) == before == state_hash(stored.model.state_dict())


def test_samples_are_chosen_evenly_by_class() -> None:
    labels = np.array([0] * 50 + [1] * 10 + [2] * 40)
    split = np.arange(0, 100, 2)
    few, more = choose_samples(split, labels, 6), choose_samples(split, labels, 12)
    assert np.bincount(labels[few]).tolist() == [2, 2, 2]
    assert set(few) < set(more) < set(split)
    assert (np.diff(more) > 0).all()
    for limit in (None, 50, 1000):
        assert choose_samples(split, labels, limit) is split


def test_names_are_text_and_a_run_is_known_by_its_folder(
    run: RunFolder, words: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`$` starts mathematics in matplotlib, and `run=.` names no folder."""
    place = tmp_path / "a $run_{1}$ [final] \\frac{"
    place.mkdir()
    for path in run.path.iterdir():
        (place / path.name).symlink_to(path)
    monkeypatch.setattr(landscape_command, "_compute", fill)
    monkeypatch.chdir(place)
    assert landscape(words(run=".")) == 0
    assert read(words())["run"] == place.name
    surface = numbers_of(lambda alpha, beta: 1 + alpha**2)
    for label in ("$\\frac{$", "$x", "a_b^c", "\\"):
        labels = {**LABELS, "method": label, "dataset": label, "model": label}
        assert_picture(draw(tmp_path / "picture.png", replace(surface, labels=labels)))


def test_a_file_system_without_locks_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr("gradspike.locks.fcntl.flock", unsupported)
    with caplog.at_level("WARNING", logger="gradspike"), PointsFile(tmp_path, {"seed": 0}, 9, restart=False) as file:
        file.add(0, Point(1.0, 0.5))
    assert file.done == {0: Point(1.0, 0.5)}


def test_a_full_disk_is_named_at_the_first_point(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error, no_file_may_grow():
        PointsFile(tmp_path, {"seed": 0}, 9, restart=False)
    assert str(error.value).startswith(f"{tmp_path}: cannot be written to (File too large)")


def test_a_full_disk_keeps_the_points(
    words: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(landscape_command, "_compute", fill)
    assert landscape(words()) == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    monkeypatch.setattr(landscape_command, "_compute", lambda *_: None)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("gradspike.runs.files.os.replace", full)
    assert reporting_errors(lambda: landscape(words())) == 1
    assert "cannot be written to (No space left on device)" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
