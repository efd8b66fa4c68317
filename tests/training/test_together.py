"""Whole trainings on several ranks: exact evaluation and records, random numbers of their own, resuming."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from gradspike.cli.evaluate import evaluate
from gradspike.runs.folder import RunFolder
from gradspike.training.checkpoint import load_checkpoint
from helpers.command import ROOT, execute
from helpers.runs import assert_same_run

WORKER = ROOT / "tests" / "helpers" / "together.py"


@pytest.fixture
def together(tiny: Callable[..., list[str]], tmp_path: Path) -> Callable[..., list[RunFolder]]:
    """The runs of several trainings on two ranks, each in the runs_dir that its name gives."""

    def trained(*jobs: tuple[str, list[str], dict[str, Any]]) -> list[RunFolder]:
        plan = [
            {"world_size": 2, "words": tiny("trainer.devices=2", *words, f"runs_dir={tmp_path / name}"), **options}
            for name, words, options in jobs
        ]
        (tmp_path / "plan.json").write_text(json.dumps(plan))
        done = execute(
            sys.executable,
            str(WORKER),
            str(tmp_path / "plan.json"),
            PYTHONPATH=str(ROOT / "tests"),
            OMP_NUM_THREADS="1",
        )
        assert done.returncode == 0, done.stderr
        expected = [[7, 7] if "fail_at" in options else [0, 0] for _, _, options in jobs]
        assert json.loads(done.stdout.splitlines()[-1]) == expected, done.stderr[-3000:]
        return [RunFolder(next((tmp_path / name).glob("2*"))) for name, _, _ in jobs]

    return trained


def test_two_ranks_resume_bit_for_bit_and_evaluate_exactly(together: Callable[..., list[RunFolder]]) -> None:
    """Poisson spikes differ between ranks and go on where they were. The last share of each split is empty."""
    words = ["dataset.normalize=unit", "model.encoder=poisson", "trainer.ema=0.9", "dataset.eval_batch_size=2"]
    words += ["checkpoint.every_n_steps=30", "time_steps=2", "trainer.max_epochs=1", "dataset.batch_size=16"]
    words += ["loss.label_smoothing=0.1"]  # the sums of a loss round differently in another order
    unbroken, _, resumed = together(
        ("unbroken", words, {}), ("broken", words, {"fail_at": 35}), ("broken", words, {"resume": True})
    )
    assert_same_run(unbroken, resumed)
    states = [rank["random_state"]["cpu"] for rank in load_checkpoint(unbroken.last)["ranks"]]
    assert len(states) == 2
    assert not torch.equal(*states)
    # One process counts the same right answers with the same weights.
    assert evaluate([f"run={unbroken.path}", "accelerator=cpu"]) == 0
    alone = json.loads((unbroken.path / "evaluation_test.json").read_text())
    for name, results in unbroken.summary()["test"].items():
        assert results["accuracy"] == alone[name]["accuracy"]
        assert results["loss"] == pytest.approx(alone[name]["loss"], rel=1e-5)
        assert results["firing_rate"] == pytest.approx(alone[name]["firing_rate"], rel=1e-5)
