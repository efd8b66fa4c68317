"""NaN and infinite values: no run and no evaluation reports an accuracy with them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from gradspike.cli.evaluate import evaluate as evaluate_command
from gradspike.config.schema import ExperimentConfig, ProbeConfig
from gradspike.cost.energy import energy_of
from gradspike.errors import UserError
from gradspike.runs.folder import RunFolder
from gradspike.spiking_norm import LayerTrace, SpikingNorm
from gradspike.terminal import tables
from gradspike.training.build import build_model
from gradspike.training.callbacks.evaluation_record import write_evaluations
from gradspike.training.checkpoint import AtomicFiles
from gradspike.training.evaluate import evaluate
from gradspike.training.module import Diverged, SpikingClassifier
from gradspike.training.probe.probe import Probe, read
from gradspike.training.probe.warnings import LayerWarnings
from helpers.runs import train

Compose = Callable[..., ExperimentConfig]
BAD = "dataset.name=helpers.bad_digits:BadDigits"
ALL = ["+dataset.bad_samples=100000", "+dataset.bad_pixels=64"]
SHORT = "trainer.max_epochs=1"


@pytest.mark.parametrize(
    "more", [[], ALL, ["+dataset.bad=infinite"], ["+dataset.bad=negative"], ["model.activation=relu"]]
)
def test_bad_training_samples_end_the_run_and_name_their_cause(tiny_config: Compose, more: list[str]) -> None:
    config = tiny_config(BAD, "+dataset.bad_split=train", *more, SHORT)
    with pytest.raises(UserError, match=r"samples? of the train split contains? NaN or infinite values .*Fix the data"):
        train(config)
    run = RunFolder(next(Path(config.runs_dir).glob("2*")))
    assert run.state() == "failed"
    assert not run.last.exists()


@pytest.mark.parametrize("encoder", ["poisson", "latency"])
def test_an_encoder_hides_no_bad_sample(tiny_config: Compose, encoder: str) -> None:
    words = [f"model.encoder={encoder}", "dataset.normalize=unit", "time_steps=2"]
    with pytest.raises(UserError, match="1 sample of the train split contains NaN"):
        train(tiny_config(BAD, "+dataset.bad_split=train", *words, SHORT))


def test_bad_validation_samples_end_the_run(tiny_config: Compose) -> None:
    with pytest.raises(UserError, match=r"1 sample of the val split contains NaN or infinite values \(first: sample"):
        train(tiny_config(BAD, "+dataset.bad_split=val", SHORT))


@pytest.mark.parametrize("more", [[], ALL])
def test_bad_test_samples_leave_the_run_and_give_no_accuracy(
    tiny_config: Compose, capsys: pytest.CaptureFixture[str], more: list[str]
) -> None:
    run = train(tiny_config(BAD, *more, SHORT))
    assert run.state() == "finished"
    said = (run.path / "run.log").read_text()
    assert "of the test split contain" in said
    assert "No test accuracy is reported" in said
    summary = run.summary()
    assert summary["test"]["last"] == {"loss": None, "accuracy": None, "firing_rate": None}
    assert summary["val"]["last"]["accuracy"] > 0
    json.loads((run.path / "layers.json").read_text(), parse_constant=pytest.fail)
    capsys.readouterr()
    with pytest.raises(UserError, match=r"last\.ckpt: \d+ samples? of the test split contains? NaN"):
        evaluate_command([f"run={run.path}", "accelerator=cpu"])
    assert "accuracy" not in capsys.readouterr().out
    assert not (run.path / "evaluation_test.json").exists()
    assert evaluate_command([f"run={run.path}", "accelerator=cpu", "split=val"]) == 0


def test_the_closing_table_shows_that_there_is_no_accuracy(
    tiny_config: Compose, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(tiny_config(SHORT))
    summary = run.summary()
    summary["test"]["last"] = summary["test"]["best"] = dict.fromkeys(summary["test"]["last"], math.nan)
    tables.print_result(summary, 1.0, "there")
    assert "nan" in capsys.readouterr().out


# None of these reaches the logits, which stay finite.
@pytest.mark.parametrize(
    "name", ["convs.0.weight", "convs.1.weight", "neurons.0.norm.bias", "neurons.1.norm.running_var"]
)
def test_weights_that_are_not_finite_are_not_evaluated(tiny_config: Compose, name: str) -> None:
    run = train(tiny_config(SHORT))
    for path in (run.last, run.best):
        checkpoint = torch.load(path, weights_only=True)
        checkpoint["state_dict"][f"model.{name}"][0] = math.nan
        AtomicFiles().save_checkpoint(checkpoint, path)
    with pytest.raises(UserError, match=rf"The network contains NaN or infinite values in {name}\."):
        evaluate(run, [run.last], "test", None, "cpu")


@pytest.mark.parametrize("validation", [[], ["dataset.name=helpers.all_digits:AllDigits"]])
def test_weights_that_become_nan_in_the_last_step_are_noticed(
    tiny_config: Compose, monkeypatch: pytest.MonkeyPatch, validation: list[str]
) -> None:
    def step(module: SpikingClassifier, *args: Any) -> None:
        original(module, *args)
        with torch.no_grad():
            module.model.convs[1].weight[0] = math.nan

    original = SpikingClassifier.optimizer_step
    monkeypatch.setattr(SpikingClassifier, "optimizer_step", step)
    config = tiny_config("dataset.batch_size=100000", SHORT, *validation)
    with pytest.raises(Diverged, match=r"convs\.1\.weight.* \(epoch 1, batch 1\)\. Try a smaller optimizer\.lr"):
        train(config)


def test_numbers_that_are_not_finite_are_null_in_the_records(tmp_path: Path) -> None:
    layer = {"name": "conv", "macs": 10, "steps": 2, "input": "whole", "nonzero": [0.5, 0.5]}
    seen = {"classes": 2, "confusion": [], "samples": 1, "neurobench": {}}
    seen["layers"] = [{**layer, "magnitude": [0.5, math.inf]}]
    write_evaluations(tmp_path, {"last": seen, "best": seen})
    layers = json.loads((tmp_path / "layers.json").read_text(), parse_constant=pytest.fail)
    assert layers["last"][0]["magnitude"] == [0.5, None]
    assert math.isnan(energy_of(layers["last"], is_ann=False).nanojoules)


def test_the_probe_warns_of_a_potential_that_is_not_finite(tiny_config: Compose) -> None:
    config = tiny_config(BAD, "+dataset.bad_split=val", "probe.samples=512", *ALL, SHORT)
    with pytest.raises(UserError):
        train(config)
    (said,) = (path.read_text() for path in Path(config.runs_dir).glob("2*/run.log"))
    assert re.search(
        r"layer 'neurons\.0' has a membrane potential that is NaN or infinite in (\d+) of \1 measured", said
    )


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_the_probe_counts_samples_whose_potential_is_not_finite(
    tiny_config: Compose, value: float, caplog: pytest.LogCaptureFixture
) -> None:
    """In any layer, step and neuron."""
    u = torch.zeros(2, 8, 3, 4, 4)
    u[1, :3, 0, 0, 0] = u[0, 2, 1, 3, 3] = value
    trace = LayerTrace(u, torch.zeros_like(u), torch.ones(2), torch.ones(2))
    measured = read({"a": Probe(ProbeConfig(histogram_bins=8))._statistics(trace)})
    assert measured["a"]["not_finite"] == [3, 8]
    layers = [layer for layer in build_model(tiny_config()).modules() if isinstance(layer, SpikingNorm)]
    warnings = LayerWarnings({"a": layers[0]})
    warnings.potentials({"a": (0, 8)})
    assert not caplog.records
    warnings.potentials({"a": (3, 8)})
    assert "layer 'a' has a membrane potential that is NaN or infinite in 3 of 8 measured samples" in caplog.text
