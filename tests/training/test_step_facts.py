"""The start of a run prints, and its record keeps, what an optimiser step sees."""

from __future__ import annotations

import json
from collections.abc import Callable

from gradspike.config.schema import ExperimentConfig
from gradspike.training.step_facts import step_facts, step_line
from helpers.runs import train

Compose = Callable[..., ExperimentConfig]


def test_a_step_divided_among_ranks_and_parts(tiny_config: Compose) -> None:
    words = ["trainer.devices=4", "trainer.accumulate=2", "dataset.batch_size=64", "method=ds_atgo"]
    facts = step_facts(tiny_config(*words), 1000)
    assert facts.pop("learning_rate_scaling").startswith("none")
    assert facts == {
        "learning_rate": 0.1,
        "batch": 64,
        "ranks": 4,
        "batch_per_rank": 16,
        "accumulate": 2,
        "batch_at_once": 8,
        "norm_batch": 32,
        "method_batch": 32,
    }
    assert step_line(step_facts(tiny_config(*words), 1000)) == (
        "step: batch 64 = 4 ranks x 2 parts x 8 samples, learning rate 0.1 (not scaled with the ranks), "
        "norm over 32 samples, method's statistics over 32"
    )
    alone = step_facts(tiny_config(*words, "norm.sync=false", "method.sync_stats=false"), 1000)
    assert (alone["norm_batch"], alone["method_batch"]) == (8, 8)


def test_a_step_of_one_process_is_printed_and_recorded(tiny_config: Compose) -> None:
    run = train(tiny_config("dataset.batch_size=5000", "trainer.max_epochs=1"))
    assert "INFO step: batch 1259, learning rate 0.1\n" in run.log.read_text()
    recorded = json.loads((run.path / "environment.json").read_text())[0]["step"]
    assert (recorded["batch"], recorded["norm_batch"]) == (1259, 1259)
    assert "method_batch" not in recorded
