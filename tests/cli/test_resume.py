"""`gradspike train resume=RUN key=value`: keys refer to the run's configuration, not to the defaults."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from gradspike.config.compose import load_config
from gradspike.config.schema import ExperimentConfig
from gradspike.runs.folder import RunFolder
from helpers.command import here

Compose = Callable[..., ExperimentConfig]


@pytest.fixture
def pictures(tmp_path: Path) -> RunFolder:
    """A run whose data set and method have keys that the defaults (digits, mpd_agl) lack."""
    words = ["dataset=imagenet", "method=psg_pda", "optimizer=adamw", "dataset.storage=encoded", "recipe=none"]
    config = load_config([*words, f"data_dir={tmp_path / 'data'}", f"runs_dir={tmp_path / 'runs'}"])
    run = RunFolder.create(config)
    run.set_status("interrupted")
    return run


def cfg(run: RunFolder, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    return here(["train", f"resume={run.path}", *words, "--cfg", "job"], capsys)


def test_the_printed_configuration_is_the_runs(pictures: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, error = cfg(pictures, capsys, "dataset.workers=3", "logger=wandb", "logger.project=mine")
    assert code == 0, error
    expected = pictures.config().plain()
    expected["dataset"]["workers"] = 3
    found = yaml.safe_load(out)
    assert (found.pop("logger")["project"], expected.pop("logger")) == ("mine", {"name": "files"})
    assert found == {**expected, "resume": str(pictures.path)}
    code, out, _ = cfg(pictures, capsys, "--package", "method")
    assert (code, yaml.safe_load(out)) == (0, expected["method"])


@pytest.mark.parametrize(
    "word",
    [
        "dataset.storage=encoded",
        "dataset=imagenet",
        "method=psg_pda",
        "optimizer=adamw",
        "optimizer.betas=[0.9,0.999]",
        "dataset.source=jose (lab)",
        "dataset.source=2025",
        "+dataset.workers=2",
        "++seed=0",
        "recipe=none",
    ],
)
def test_what_the_run_has_may_be_typed_again(
    pictures: RunFolder, capsys: pytest.CaptureFixture[str], word: str
) -> None:
    code, out, error = cfg(pictures, capsys, word)
    assert code == 0, error
    if "source" in word:
        assert yaml.safe_load(out)["dataset"]["source"] == word.partition("=")[2]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("dataset.storag=encoded", "unknown key 'dataset.storag'. Did you mean 'dataset.storage'?"),
        ("storage=encoded", "Did you mean 'dataset.storage'?"),
        ("optimizer.beta=1", "Did you mean 'optimizer.betas'?"),
        ("optimizer.momentum=0.5", "unknown key 'optimizer.momentum'."),
        ("method.gamma_mean=1", "unknown key 'method.gamma_mean'."),
        ("+dataset.storrage=1", "unknown key 'dataset.storrage'. Did you mean 'dataset.storage'?"),
        ("datset=imagenet", "Did you mean 'dataset'?"),
        ("dataset=cifar1", "unknown dataset 'cifar1'. Did you mean 'cifar10'?"),
        ("dataset.workers=-1", "dataset.workers=-1: must be"),
        ("dataset.val_fraction=0.3", "dataset.val_fraction: the run has 0.01, the command line 0.3"),
        ("method=mpd_agl", "method.name: the run has psg_pda, the command line mpd_agl"),
        ("method.v_threshold=0.7", "method.v_threshold: the run has 0.5, the command line 0.7"),
        ("~optimizer", "a resumed run keeps its optimizer"),
        ("dataset.workers=1,2", "takes one value, not several"),
        ("seed={", "cannot be read"),
        ("runs_dir=elsewhere", "runs_dir: the run has"),
    ],
)
@pytest.mark.parametrize("printing", [True, False])
def test_mistakes_are_reported_with_the_runs_own_keys(
    pictures: RunFolder, capsys: pytest.CaptureFixture[str], word: str, said: str, printing: bool
) -> None:
    words = ["train", f"resume={pictures.path}", word, *(["--cfg", "job"] if printing else [])]
    code, out, error = here(words, capsys)
    assert (code, out) == (2, ""), error
    assert said in error
    assert pictures.state() == "interrupted"


@pytest.mark.parametrize("words", [["--cfg", "all"], ["-m"], ["hydra.mode=MULTIRUN"], ["--package", "metod"]])
def test_resume_does_not_go_with(pictures: RunFolder, capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    more = ["--cfg", "job"] if words[0] == "--package" else []
    code, _, error = here(["train", f"resume={pictures.path}", *words, *more], capsys)
    assert code == 2
    assert "cannot be combined" in error or "has no such part" in error


def test_one_run_is_resumed_at_a_time(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _, error = here(["train", "resume=runs/a,runs/b"], capsys)
    assert code == 2
    assert "one run at a time" in error
    assert "-m" not in error, "which would be refused in turn"


def test_a_recipe_of_the_run_is_that_of_its_groups(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = RunFolder.create(load_config(["method=psg", "dataset=cifar10", f"runs_dir={tmp_path}"]))
    assert run.config().recipe is not None
    for word in ("dataset=cifar10", "method=psg", "model=resnet19"):
        code, _, error = cfg(run, capsys, word)
        assert code == 0, error


def test_a_run_of_texts_that_look_like_references(pictures: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    config = yaml.safe_load((pictures.path / "config.yaml").read_text())
    config["dataset"]["source"] = "${oc.env:HOME}"
    (pictures.path / "config.yaml").write_text(yaml.safe_dump(config))
    code, out, error = cfg(pictures, capsys)
    assert code == 0, error
    assert "${oc.env:HOME}" in out


def test_a_relative_run_is_resumed_and_trained(
    tiny_config: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunFolder.create(tiny_config("dataset=digits_events", "time_steps=2", "trainer.max_epochs=1"))
    monkeypatch.chdir(run.path)
    code, _, error = here(["train", "resume=.", "dataset.workers=0", "trainer.progress=none"], capsys)
    assert code == 0, error
    assert run.state() == "finished"
    (session,) = json.loads((run.path / "environment.json").read_text())
    assert "resume=." in session["command"]
