"""The progress of a run, read from its files. Each call reads only new lines."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gradspike.json_text import readable
from gradspike.runs.folder import RunFolder
from gradspike.tools.sweep.file import ENERGY, Metric


@dataclass
class Tail:
    """Returns each complete line with the text `key` in a growing file once.

    Other lines are neither parsed nor kept: a long run has gigabytes of them. A resumed run may have truncated the
    file.
    """

    path: Path
    key: bytes
    place: int = 0

    def new(self) -> list[dict[str, Any]]:
        """The records written since the last call."""
        records = []
        try:
            with self.path.open("rb") as file:
                if file.seek(0, 2) < self.place:
                    self.place = 0
                file.seek(self.place)
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    self.place += len(line)
                    if self.key in line and (record := _parsed(line)) is not None:
                        records.append(record)
        except OSError:
            pass
        return records


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


@dataclass
class Progress:
    """The finished epochs of a run, the metric after each, and their seconds."""

    run: Path
    metric: Metric
    epochs: dict[int, float] = field(default_factory=dict)
    """The metric of each epoch, by the number of finished epochs (from 1)."""
    done: int = 0
    seconds: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._metrics = Tail(self.run / "metrics.jsonl", b'"epoch"')
        self._timing = Tail(self.run / "timing.jsonl", b'"epoch_seconds"')

    def update(self) -> list[tuple[int, float]]:
        """Read new lines. Returns (finished epochs, metric) for each new epoch."""
        new = []
        for record in self._metrics.new():
            if "epoch" not in record:
                continue
            self.done = int(record["epoch"]) + 1
            value = record.get(f"val/{self.metric.quantity}")
            if isinstance(value, int | float) and math.isfinite(value):
                if self.done not in self.epochs:
                    new.append((self.done, float(value)))
                self.epochs[self.done] = float(value)
        self.seconds += [float(record["epoch_seconds"]) for record in self._timing.new() if "epoch_seconds" in record]
        return new

    @property
    def latest(self) -> float | None:
        """The latest metric."""
        return self.epochs[max(self.epochs)] if self.epochs else None

    def left(self, epochs: int) -> float | None:
        """Estimated seconds until `epochs` are finished; None before the first."""
        return (epochs - self.done) * sum(self.seconds) / len(self.seconds) if self.seconds else None


def final_value(run: RunFolder, metric: Metric) -> float | None:
    """An objective of the sweep in a run's summary.json; the energy in its layers.json. None if it is missing."""
    if metric.name == ENERGY:
        return _energy(run)
    value = run.summary().get("val", {}).get(metric.checkpoint, {}).get(metric.quantity)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _energy(run: RunFolder) -> float | None:
    from gradspike.cost.energy import energy_of

    layers = readable(run.path / "layers.json", dict)
    try:
        return None if layers is None else energy_of(layers["last"], run.config().model.activation == "relu").nanojoules
    except (LookupError, TypeError, ValueError, AttributeError):
        return None
