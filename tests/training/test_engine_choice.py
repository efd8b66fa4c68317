"""Which engine `engine=auto` is on a CPU."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from gradspike.__main__ import main
from gradspike.config.schema import ExperimentConfig
from gradspike.engine.registry import load_engine
from gradspike.runs.folder import RunFolder
from gradspike.spiking_norm import SpikingNorm
from gradspike.training.engine_choice import first_engine, settle_engine
from gradspike.training.evaluate import evaluate
from gradspike.training.module import SpikingClassifier

Compose = Callable[..., ExperimentConfig]


def engines_of(module: SpikingClassifier) -> set[object]:
    return {layer._run for layer in module.model.modules() if isinstance(layer, SpikingNorm)}


def settled(config: ExperimentConfig, samples: int) -> tuple[set[object], str | None]:
    module = SpikingClassifier(config, first_engine(config))
    reason = settle_engine(module.model, config, samples)
    return engines_of(module), reason


@pytest.mark.parametrize("dataset", ["digits", "digits_events"])
def test_long_training_compiles_and_short_training_does_not(tiny_config: Compose, dataset: str) -> None:
    config = tiny_config("engine=auto", f"dataset={dataset}", "model.width=4", "model.depth=2")
    engines, reason = settled(config, 1_000)
    assert engines == {load_engine("eager")}
    assert reason is not None
    assert "engine: eager" in reason
    assert settled(config, 1_000_000_000) == ({load_engine("compiled")}, None)


def test_epochs_and_samples_count_alike(tiny_config: Compose) -> None:
    words = ["engine=auto", "dataset=digits", "model.width=4", "model.depth=2"]
    # 1,536 neurons and steps a sample: 20 s / 3e-9 s are 6.7e9 updates.
    assert settled(tiny_config(*words, "trainer.max_epochs=100"), 40_000)[1] is not None
    assert settled(tiny_config(*words, "trainer.max_epochs=100"), 45_000)[1] is None
    assert settled(tiny_config(*words, "trainer.max_epochs=1"), 45_000)[1] is not None


@pytest.mark.parametrize("words", [["engine=compiled"], ["engine=auto", "trainer.compile=true"]])
def test_what_is_asked_for_is_used(tiny_config: Compose, words: list[str]) -> None:
    assert settled(tiny_config(*words), 1) == ({load_engine("compiled")}, None)


def test_a_run_says_so_and_is_evaluated_alike(
    tiny: Callable[..., list[str]], tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path_factory.mktemp("runs")
    assert main(["train", *tiny("engine=auto"), f"runs_dir={runs}"]) == 0
    assert capsys.readouterr().out.count("engine: eager; compiled kernels save less than 1 s") == 1
    (folder,) = runs.iterdir()
    summary = json.loads((folder / "summary.json").read_text())
    run = RunFolder(folder)
    (found,) = evaluate(run, [run.last], "test", None, "cpu").values()
    assert found["loss"] == summary["test"]["last"]["loss"]
