"""More epochs for a finished run."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

import pytest

from gradspike.cli.train import train as train_command
from gradspike.config.schema import ExperimentConfig
from gradspike.errors import ConfigError
from gradspike.runs.folder import RunFolder
from gradspike.runs.resume import resumed_config
from helpers.runs import assert_same_run, epoch_records, train

Compose = Callable[..., ExperimentConfig]


def extend(run: RunFolder, compose: Compose, epochs: int) -> None:
    words = [f"resume={run.path}", f"trainer.max_epochs={epochs}"]
    requested = run.config().model_copy(
        update={"resume": str(run.path), "trainer": run.config().trainer.model_copy(update={"max_epochs": epochs})}
    )
    assert train_command(requested, words) == 0


def test_with_a_constant_rate_it_is_the_longer_run(tiny_config: Compose, caplog: pytest.LogCaptureFixture) -> None:
    words = ["scheduler=constant", "probe.every_n_steps=10"]
    longer = train(tiny_config(*words, "trainer.max_epochs=3"))
    run = train(tiny_config(*words, "trainer.max_epochs=2"))
    with caplog.at_level(logging.INFO, "gradspike"):
        extend(run, tiny_config, 3)
    assert "changed: trainer.max_epochs=3 instead of 2" in caplog.text
    assert "schedule: constant over 3 epochs from here on; the learning rate is 0.1 in epoch 3." in caplog.text
    assert_same_run(longer, run)
    assert run.config().trainer.max_epochs == 3
    assert run.state() == "finished"
    assert run.sessions()[-1]["changed"] == {"trainer.max_epochs": [2, 3]}


def test_a_cosine_goes_on_as_if_it_had_been_longer(tiny_config: Compose, caplog: pytest.LogCaptureFixture) -> None:
    """The first new step already has the new rate, not the last one of the old schedule, which is 0."""
    run = train(tiny_config("scheduler.interval=epoch", "trainer.max_epochs=2"))
    with caplog.at_level(logging.INFO, "gradspike"):
        extend(run, tiny_config, 4)
    half = 0.1 * 0.5 * (1 + math.cos(math.pi / 2))
    assert f"the learning rate is {half:.3g} in epoch 3 instead of 0, so the run differs" in caplog.text
    rates = [record["lr"] for record in epoch_records(run)]
    assert len(rates) == 4
    assert rates[2] == pytest.approx(0.1 * 0.5 * (1 + math.cos(math.pi * 3 / 4)))
    assert rates[3] < rates[2]


def test_the_first_new_step_has_the_new_rate(tiny_config: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    from gradspike.training.module import SpikingClassifier

    run = train(tiny_config("trainer.max_epochs=1"))
    seen: list[float] = []
    original = SpikingClassifier.training_step

    def step(self, batch, batch_idx):  # type: ignore[no-untyped-def]
        seen.append(self.optimizers().param_groups[0]["lr"])
        return original(self, batch, batch_idx)

    monkeypatch.setattr(SpikingClassifier, "training_step", step)
    extend(run, tiny_config, 2)
    assert seen[0] == pytest.approx(0.05)
    assert seen == sorted(seen, reverse=True)


def test_progress_of_a_method_is_said(tiny_config: Compose, caplog: pytest.LogCaptureFixture) -> None:
    run = train(tiny_config("method=asgl", "trainer.max_epochs=1"))
    with caplog.at_level(logging.INFO, "gradspike"):
        extend(run, tiny_config, 2)
    assert "The method's progress goes back from 100% to 50%" in caplog.text


def test_what_is_refused(tiny_config: Compose) -> None:
    """Fewer epochs, and a group with more epochs, which nobody typed."""
    run = train(tiny_config("trainer.max_epochs=1"))
    config = run.config()
    trainer = config.trainer.model_copy(update={"max_epochs": 30})
    with pytest.raises(ConfigError, match=r"trainer.max_epochs: the run has 1, the command line 30"):
        resumed_config(run, config.model_copy(update={"trainer": trainer}), ["trainer=default"])
    longer = config.model_copy(update={"trainer": trainer})
    assert resumed_config(run, longer, ["trainer.max_epochs=30"]).trainer.max_epochs == 30
    run.extend(40)
    with pytest.raises(ConfigError, match=r"Free to change: .*; and trainer.max_epochs, to a larger number"):
        resumed_config(run, longer, ["trainer.max_epochs=30"])
