"""Facts about one optimiser step: learning rate, batch, its division among ranks, samples behind each statistic."""

from __future__ import annotations

from typing import Any

from gradspike.config.schema import ExperimentConfig
from gradspike.shown import counted


def step_facts(config: ExperimentConfig, train_samples: int) -> dict[str, Any]:
    """The facts as recorded in environment.json.

    batch: samples per step, over all ranks. batch_per_rank: samples per step on one rank. batch_at_once: samples that
    one rank passes through the network at a time. norm_batch, method_batch: samples behind the statistics of the norm
    and of the method (if it has any).
    """
    ranks, parts = config.trainer.world_size, config.trainer.accumulate
    batch = min(config.dataset.batch_size, train_samples)
    at_once = batch // (ranks * parts)
    facts = {
        "learning_rate": config.optimizer.lr,
        "learning_rate_scaling": "none: optimizer.lr holds for the batch of a step, on any number of ranks",
        "batch": batch,
        "ranks": ranks,
        "batch_per_rank": at_once * parts,
        "accumulate": parts,
        "batch_at_once": at_once,
        "norm_batch": at_once * (1 if config.norm.sync is False else ranks),
    }
    if (sync_stats := getattr(config.method, "sync_stats", None)) is not None:
        facts["method_batch"] = at_once * (1 if sync_stats is False else ranks)
    return facts


def step_line(facts: dict[str, Any]) -> str:
    """`step: batch 64 = 2 ranks x 2 parts x 16 samples, learning rate 0.1 (not scaled), norm over 32 samples`."""
    ranks, parts = facts["ranks"], facts["accumulate"]
    if ranks == parts == 1:
        return f"step: batch {facts['batch']}, learning rate {facts['learning_rate']:g}"
    factors = (
        [f"{ranks} ranks"] * (ranks > 1)
        + [f"{parts} parts"] * (parts > 1)
        + [counted(facts["batch_at_once"], "sample")]
    )
    scaling = " (not scaled with the ranks)" if ranks > 1 else ""
    statistics = f"norm over {counted(facts['norm_batch'], 'sample')}"
    if "method_batch" in facts:
        statistics += f", method's statistics over {facts['method_batch']}"
    return (
        f"step: batch {facts['batch']} = {' x '.join(factors)}, learning rate {facts['learning_rate']:g}{scaling}, "
        f"{statistics}"
    )
