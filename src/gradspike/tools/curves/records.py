"""The curves of a run, read from metrics.jsonl and timing.jsonl."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gradspike.json_text import readable_lines
from gradspike.runs.probe_records import VALIDATION, layer_names

Record = dict[str, Any]
LAYER_QUANTITIES = {
    "firing_rate": ("firing rate (%)", VALIDATION, 100.0),
    "gradient_available": ("gradient-available share (%)", VALIDATION, 100.0),
    "theta": ("threshold", "probe", 1.0),
    "kappa": ("surrogate width", "probe", 1.0),
}
"""Heading, prefix of the records and factor of what the probe measures in each layer."""


@dataclass(frozen=True)
class Curve:
    """One line: its name, epochs (a fraction within an epoch) and values."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]


@dataclass(frozen=True)
class Panel:
    """One pair of axes. by_layer: the curves are those of the layers, from input to output, after their mean."""

    title: str
    curves: tuple[Curve, ...]
    by_layer: bool = False

    @property
    def measured_once(self) -> bool:
        """Whether all curves are single points at the same time."""
        return len({curve.x for curve in self.curves}) == 1 and len(self.curves[0].x) == 1


@dataclass
class Curves:
    """All panels of a run that have values."""

    panels: list[Panel] = field(default_factory=list)
    epochs: int = 0
    damaged: int = 0
    """The number of unreadable lines of metrics.jsonl; the last one of a running run may be half written."""


def read(run: Path) -> Curves:
    """Read the curves of a run folder; missing files have none."""
    found = Curves()
    of_epochs: list[Record] = []
    probes: dict[str, list[Record]] = {"probe": [], VALIDATION: []}
    damaged: list[str] = []
    for record in readable_lines(run / "metrics.jsonl", damaged):
        if "train/loss" in record:
            of_epochs.append(record)
        for prefix, kept in probes.items():
            if any(key.startswith(f"{prefix}/") for key in record):
                kept.append(_of_layers(record, prefix))
    found.damaged = len(damaged)
    found.epochs = len(of_epochs)
    steps = of_epochs[0]["step"] / (of_epochs[0]["epoch"] + 1) if of_epochs else 0.0
    titles = {"loss": ("loss", 1.0), "accuracy": ("accuracy (%)", 100.0)}
    for quantity, (title, factor) in titles.items():
        splits = {"train": "training", "val": "validation"}
        lines = [_of_epochs(name, of_epochs, f"{split}/{quantity}", factor) for split, name in splits.items()]
        _add(found, title, lines)
    _add(found, "learning rate", [_of_epochs("learning rate", of_epochs, "lr")])
    for quantity, (title, prefix, factor) in LAYER_QUANTITIES.items():
        _add(found, title, list(_by_layer(probes[prefix], prefix, quantity, factor, steps)), by_layer=True)
    times = list(readable_lines(run / "timing.jsonl"))
    _add(found, "training time (s per epoch)", [_of_epochs("seconds", times, "train_seconds")])
    return found


def _of_layers(record: Record, prefix: str) -> Record:
    """The step and the numbers that are drawn: a run records thousands of others."""
    endings = tuple(f"/{quantity}" for quantity in LAYER_QUANTITIES)
    return {
        key: value
        for key, value in record.items()
        if key == "step" or (key.startswith(prefix) and key.endswith(endings))
    }


def _of_epochs(name: str, records: list[Record], key: str, factor: float = 1.0) -> Curve:
    points = [
        (record["epoch"] + 1, value * factor) for record in records if (value := _number(record.get(key))) is not None
    ]
    return Curve(name, *_split(points))


def _by_layer(records: list[Record], prefix: str, quantity: str, factor: float, steps: float) -> Iterator[Curve]:
    """The mean over layers, then each layer, over epochs; over optimiser steps before the end of the first epoch."""
    for name in ("mean", *layer_names(records, prefix, quantity)):
        key = f"{prefix}/{name}/{quantity}"
        points = [
            (record["step"] / (steps or 1.0), value * factor)
            for record in records
            if (value := _number(record.get(key))) is not None
        ]
        yield Curve(name, *_split(points))


def _split(points: list[tuple[float, float]]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return tuple(x for x, _ in points), tuple(y for _, y in points)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _add(found: Curves, title: str, curves: list[Curve], *, by_layer: bool = False) -> None:
    there = tuple(curve for curve in curves if curve.x)
    if there:
        found.panels.append(Panel(title, there, by_layer))
