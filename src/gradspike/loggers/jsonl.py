"""metrics.jsonl: one JSON object a line, the record every run keeps whatever other logger it has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from gradspike.runs.files import finite


class JsonLines(Logger):
    """Appends {"step": n, **metrics}; a number that is not finite becomes null, since JSON has none."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.file = file

    @property
    def name(self) -> str:
        """Name of the logger."""
        return "files"

    @property
    def version(self) -> str:
        """The run's folder."""
        return self.file.parent.name

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Append one record."""
        record = finite({"step": step, **metrics})
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing to do: config.yaml holds them."""

    def size(self) -> int:
        """Bytes written so far."""
        return self.file.stat().st_size if self.file.exists() else 0

    def cut(self, size: int) -> None:
        """Forget what was written after the file had `size` bytes."""
        if self.file.exists():
            with self.file.open("r+", encoding="utf-8") as file:
                file.truncate(size)
