"""The interface of a run's loggers, an extension of Lightning's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch.loggers.logger import Logger


class RunLogger(Logger):
    """A logger that a run opens before its first record and closes after its test."""

    def start(self) -> None:
        """Open the destination of the records."""

    def start_again(self) -> None:
        """Drop the records of an earlier session, which left no state to continue from. Called before `start`."""

    def log_probe(self, scalars: dict[str, float], histograms: Mapping[str, Sequence[float]], step: int) -> None:
        """Log a record of the probe. `histograms` are the fractions of equal bins; loggers may ignore them."""
        self.log_metrics(scalars, step)

    def close(self, summary: dict[str, Any] | None) -> None:
        """End the record; `summary` is None after a failure."""
