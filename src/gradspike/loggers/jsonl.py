"""metrics.jsonl: one JSON object per line. Every run writes it, in addition to any other logger."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only
from typing_extensions import override

from gradspike.json_text import to_json
from gradspike.loggers.base import RunLogger
from gradspike.runs.files import append_line


class JsonLines(RunLogger):
    """Appends {"step": n, **metrics}. NaN and infinite numbers become null, because JSON has none."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.file = file

    @property
    @override
    def name(self) -> str:
        return "files"

    @property
    @override
    def version(self) -> str:
        return self.file.parent.name

    @override
    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        append_line(self.file, to_json({"step": step, **metrics}))

    @override
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing to do: config.yaml contains them."""

    @override
    def log_probe(self, scalars: dict[str, float], histograms: Mapping[str, Sequence[float]], step: int) -> None:
        self.log_metrics({**scalars, **histograms}, step)

    @override
    def start_again(self) -> None:
        self.cut(0)

    def size_on_disk(self) -> int:
        """Bytes written so far, which a power failure no longer takes away."""
        try:
            with self.file.open("rb") as file:
                os.fsync(file.fileno())
                return os.fstat(file.fileno()).st_size
        except FileNotFoundError:
            return 0

    def cut(self, size: int) -> None:
        """Remove everything after the first `size` bytes."""
        if self.file.exists():
            with self.file.open("r+", encoding="utf-8") as file:
                file.truncate(size)
