"""The moving average of the weights: its values, and its use in every evaluation."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from gradspike.cli.evaluate import evaluate
from gradspike.config.schema import ExperimentConfig
from gradspike.runs.folder import RunFolder
from gradspike.training.checkpoint import load_checkpoint
from gradspike.training.module import Diverged
from helpers.plain_loop import State, plain_training
from helpers.runs import epoch_records, train

Compose = Callable[..., ExperimentConfig]


def plain_average(states: list[State], decay: float) -> State:
    """The average after updates with all states in turn; counters are those of the last state."""
    average = {name: value.double() for name, value in states[0].items()}
    for number, state in enumerate(states, start=1):
        rest = min(decay, (number - 1) / number)
        average = {name: rest * average[name] + (1 - rest) * value.double() for name, value in state.items()}
    counters = {name: value for name, value in states[-1].items() if not value.is_floating_point()}
    return {name: value.to(states[0][name].dtype) for name, value in average.items()} | counters


@pytest.mark.parametrize("accumulate", [1, 2])
def test_average_of_weights_and_running_statistics_after_every_step(tiny_config: Compose, accumulate: int) -> None:
    words = ["method=ds_atgo", "scheduler=constant", "trainer.max_epochs=1", "trainer.ema=0.8"]
    config = tiny_config(*words, f"trainer.accumulate={accumulate}")
    checkpoint = load_checkpoint(train(config).last)
    states = list(plain_training(config))
    average = plain_average(states, 0.8)
    assert {"neurons.0.norm.running_var", "neurons.0.method.running_threshold"} <= average.keys()
    for name, expected in average.items():
        torch.testing.assert_close(checkpoint["state_dict"][f"model.{name}"], expected)
        torch.testing.assert_close(checkpoint["training_state"][f"model.{name}"], states[-1][name])


def test_the_average_is_what_is_validated_tested_and_evaluated(tiny_config: Compose) -> None:
    words = ["dataset=digits_events", "time_steps=2", "trainer.max_epochs=2", "probe.every_n_steps=1000"]
    plain, averaged = train(tiny_config(*words)), train(tiny_config(*words, "trainer.ema=0.95"))
    one, other = (load_checkpoint(run.last) for run in (plain, averaged))
    assert all(torch.equal(one["state_dict"][key], other["training_state"][key]) for key in one["state_dict"])
    assert plain.summary()["ema"] is None
    summary = averaged.summary()
    assert summary["ema"] == 0.95
    records = [epoch_records(run)[-1] for run in (plain, averaged)]
    assert records[0]["train/loss"] == records[1]["train/loss"]
    assert records[0]["val/loss"] != records[1]["val/loss"]
    for split, expected in (("val", summary["val"]), ("test", summary["test"])):
        evaluate([f"run={averaged.path}", f"split={split}", "accelerator=cpu"])
        found = json.loads((averaged.path / f"evaluation_{split}.json").read_text())
        for name in ("last", "best"):
            assert {key: expected[name][key] for key in found[name]} == found[name]
    lines = [json.loads(line) for line in averaged.metrics.read_text().splitlines()]
    probed = [line for line in lines if "probe_val/mean/theta" in line][-1]
    weights = other["state_dict"]["model.neurons.1.neuron.decay_logit"]
    assert weights != other["training_state"]["model.neurons.1.neuron.decay_logit"]
    # MPD-AGL's width follows the decay and the mean gain, so it shows which weights the probe saw.
    gain = other["state_dict"]["model.neurons.1.norm.weight"].mean()
    width = float(2 * gain * 0.5 * (1 + torch.sigmoid(weights) ** 2).sqrt())
    assert probed["probe_val/neurons.1/kappa/t1"] == pytest.approx(width, rel=1e-4)


def test_what_diverged_in_the_validation_is_kept_as_it_was_trained(tiny_config: Compose) -> None:
    words = ["dataset.batch_size=100000", "trainer.max_epochs=1", "optimizer.lr=1e38", "trainer.ema=0.9"]
    config = tiny_config(*words, "scheduler=constant", "trainer.gradient_clip=1")
    with pytest.raises(Diverged):
        train(config)
    run = RunFolder(next(Path(config.runs_dir).glob("2*")))
    kept = load_checkpoint(run.checkpoints / "diverged.ckpt")
    last = list(plain_training(config))[-1]
    assert all(torch.equal(kept["training_state"][f"model.{name}"], value) for name, value in last.items())
