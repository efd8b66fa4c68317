"""Groups of runs with given accuracies, for tests of what is computed from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gradspike.tools.compare.groups import Group, Grouping, text_of
from gradspike.tools.compare.run import Run


def grouping_of(accuracies: Mapping[tuple[str, tuple[tuple[str, Any], ...]], Mapping[int, float]]) -> Grouping:
    """{(label, ((swept key, value), ...)): {seed: test accuracy}} as a Grouping."""
    keys = dict.fromkeys(key for _, settings in accuracies for key, _ in settings)
    short = {key: {"time_steps": "T", "dataset.name": "dataset"}.get(key, key.rpartition(".")[2]) for key in keys}
    groups = []
    for (label, settings), values in accuracies.items():
        name = ", ".join([label, *(f"{short[key]}={text_of(value)}" for key, value in settings)])
        runs = tuple(_run(f"{name} {seed}", label, seed, value) for seed, value in values.items())
        groups.append(Group(name, label, dict(settings), runs))
    return Grouping(tuple(groups), tuple(keys), short, (), ())


def _run(name: str, label: str, seed: int, accuracy: float) -> Run:
    config = {"seed": seed, "method": {"name": label}, "model": {}, "dataset": {}, "trainer": {}}
    return Run(name, name, "files", config, {"test": {"last": {"accuracy": accuracy, "loss": 1.0}}, "val": {}}, ())
