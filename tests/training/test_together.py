"""Whole trainings on several ranks: exact evaluation and records, separate random numbers, resuming."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from gradspike.cli.evaluate import evaluate
from gradspike.runs.folder import RunFolder
from gradspike.training.checkpoint import load_checkpoint
from helpers.command import ROOT, execute
from helpers.runs import assert_same_run
from helpers.warm import warm_python

WORKER = ROOT / "tests" / "helpers" / "together.py"


@dataclass
class Ended:
    """A run trained on two ranks, both exit codes, and the time taken."""

    run: RunFolder
    codes: list[int]
    seconds: float


@pytest.fixture
def together(tiny: Callable[..., list[str]], tmp_path: Path) -> Callable[..., tuple[list[Ended], str]]:
    """Several trainings on two ranks, each in the runs_dir of its name, and what they wrote to standard error."""

    def trained(*jobs: tuple[str, list[str], dict[str, Any]]) -> tuple[list[Ended], str]:
        plan = [
            {"world_size": 2, "words": tiny("trainer.devices=2", *words, f"runs_dir={tmp_path / name}"), **options}
            for name, words, options in jobs
        ]
        (tmp_path / "plan.json").write_text(json.dumps(plan))
        done = execute(
            *warm_python(),
            str(WORKER),
            str(tmp_path / "plan.json"),
            PYTHONPATH=str(ROOT / "tests"),
            OMP_NUM_THREADS="1",
        )
        assert done.returncode == 0, done.stderr
        results = json.loads(done.stdout.splitlines()[-1])
        runs = [RunFolder(next((tmp_path / name).glob("2*"))) for name, _, _ in jobs]
        return [Ended(run, *result) for run, result in zip(runs, results, strict=True)], done.stderr

    return trained


def test_two_ranks_resume_bit_for_bit_and_evaluate_exactly(together: Callable[..., tuple[list[Ended], str]]) -> None:
    """Poisson spikes differ between ranks and continue after a restart. The last share of each split is empty."""
    words = ["dataset.normalize=unit", "model.encoder=poisson", "trainer.ema=0.9", "dataset.eval_batch_size=2"]
    words += ["checkpoint.every_n_steps=15", "time_steps=2", "trainer.max_epochs=1", "dataset.batch_size=32"]
    words += ["loss.label_smoothing=0.1"]  # the sum of a loss depends on its order
    failing: dict[str, Any] = {"fail": [None, 18, "exit"]}
    short: dict[str, Any] = {"resume": True, "max_hours": 1e-9}
    ended, errors = together(
        ("unbroken", words, {}),
        ("broken", words, failing),
        ("broken", words, short),
        ("broken", words, {"resume": True}),
    )
    assert [one.codes for one in ended] == [[0, 0], [7, 7], [75, 75], [0, 0]], errors
    unbroken, resumed = ended[0].run, ended[-1].run
    assert_same_run(unbroken, resumed)
    states = [rank["random_state"]["cpu"] for rank in load_checkpoint(unbroken.last)["ranks"]]
    assert len(states) == 2
    assert not torch.equal(*states)
    # A single process counts the same correct answers with the same weights.
    assert evaluate([f"run={unbroken.path}", "accelerator=cpu", "batch_size=64"]) == 0
    alone = json.loads((unbroken.path / "evaluation_test.json").read_text())
    for name, results in unbroken.summary()["test"].items():
        assert results["accuracy"] == alone[name]["accuracy"]
        assert results["loss"] == pytest.approx(alone[name]["loss"], rel=1e-5)
        assert results["firing_rate"] == pytest.approx(alone[name]["firing_rate"], rel=1e-5)


@pytest.mark.slow
def test_two_ranks_start_from_weights_and_train_for_more_epochs(
    together: Callable[..., tuple[list[Ended], str]],
) -> None:
    """Both with a moving average, which differs from the weights; `again` is interrupted while it trains for longer."""
    words = ["time_steps=2", "dataset.batch_size=64", "trainer.ema=0.9", "checkpoint.every_n_steps=10"]
    once, twice = [*words, "trainer.max_epochs=1"], [*words, "trainer.max_epochs=2"]
    failing: dict[str, Any] = {"fail": [None, 15, "exit"]}
    ended, errors = together(("base", once, {}), ("again", once, {}))
    assert [one.codes for one in ended] == [[0, 0]] * 2, errors
    base = ended[0].run
    start = f"init_from={base.path}"
    ended, errors = together(
        ("base", twice, {"resume": True}),
        ("again", twice, {"resume": True, **failing}),
        ("again", twice, {"resume": True}),
        ("started", [*once, start, "optimizer.lr=1e-12", "seed=7"], {}),
        ("started", [*twice, start, "optimizer.lr=1e-12", "seed=7"], {"resume": True}),
    )
    assert [one.codes for one in ended] == [[0, 0], [7, 7], *[[0, 0]] * 3], errors
    longer, again, started = ended[0].run, ended[2].run, ended[4].run
    assert_same_run(longer, again)
    assert longer.summary()["epochs"] == 2
    first, second = (load_checkpoint(run.best)["state_dict"] for run in (base, started))
    weights = [name for name in first if name.endswith("weight")]
    assert weights
    for name in weights:
        torch.testing.assert_close(second[name], first[name])


def test_a_rank_that_dies_ends_the_others_with_one_sentence(together: Callable[..., tuple[list[Ended], str]]) -> None:
    """Ranks started by torchrun or srun do not know each other's process ids."""
    words = ["trainer.max_epochs=30", "time_steps=2"]
    ended, errors = together(
        ("failed", words, {"fail": [1, 8, "error"]}),
        ("killed", words, {"fail": [1, 8, "kill"]}),
        ("early", words, {"fail": [1, 0, "kill"]}),
        ("first", words, {"fail": [0, 8, "kill"]}),
    )
    assert [one.codes for one in ended] == [[1, 1], [1, -9], [1, -9], [-9, 1]], errors
    assert [one.run.state() for one in ended] == ["failed", "failed", "failed", "running"]
    sentences = [
        "Rank 1 failed: OSError: the disk is gone",
        "Rank 1 died without reporting an error: it was killed, or its machine cannot be reached.",
        "Rank 1 died without reporting an error: it was killed, or its machine cannot be reached.",
        "Rank 0 died, and the training with it.",
    ]
    assert [line for line in errors.splitlines() if line.startswith("Error")] == [f"Error: {one}" for one in sentences]
    assert errors.count("Traceback") == 1  # of the error itself
    assert "gloo" not in errors
    for one, sentence in zip(ended[:3], sentences, strict=False):
        assert json.loads((one.run.path / "status.json").read_text())["reason"] == f"RankLost: {sentence}"
    assert all(one.seconds < 30 for one in ended)
