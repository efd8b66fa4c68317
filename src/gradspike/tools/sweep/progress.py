"""The progress of a run, read from its files. Each call reads only new lines."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gradspike.tools.sweep.file import Metric


@dataclass
class Tail:
    """Returns each complete line of a growing file once. A resumed run may have truncated the file."""

    path: Path
    place: int = 0

    def new(self) -> list[dict[str, Any]]:
        """The records written since the last call."""
        try:
            with self.path.open("rb") as file:
                if file.seek(0, 2) < self.place:
                    self.place = 0
                file.seek(self.place)
                content = file.read()
        except OSError:
            return []
        whole = content[: content.rfind(b"\n") + 1]
        self.place += len(whole)
        records = []
        for line in whole.splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict):
                records.append(record)
        return records


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
        self._metrics = Tail(self.run / "metrics.jsonl")
        self._timing = Tail(self.run / "timing.jsonl")

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


def final_value(summary: dict[str, Any], metric: Metric) -> float | None:
    """The sweep's metric in a run's summary.json."""
    value = summary.get("val", {}).get(metric.checkpoint, {}).get(metric.quantity)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
