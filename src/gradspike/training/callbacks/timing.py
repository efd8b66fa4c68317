"""Records the time and memory of each epoch, apart from the metrics because they vary between equal runs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
from typing_extensions import override

from gradspike.json_text import to_json
from gradspike.runs.files import append_line
from gradspike.training.peak_memory import peak_mb, reset_peak


class Timing(L.Callback):
    """Appends a line to timing.jsonl after each epoch.

    Keys: epoch, train_seconds, samples_per_second, epoch_seconds, peak_memory_mb and peak_rss_mb. `epoch_seconds`
    includes validation and saving, `samples_per_second` does not. Peak memory is the GPU's (null on a CPU); peak RSS is
    that of the process since training started. An epoch that was resumed midway is timed up to the checkpoint and
    again from there: repeated work counts once, and the time between two sessions does not count.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.samples_per_second = 0.0
        self._samples = 0
        self._started = 0.0
        self._train_seconds = 0.0
        self._device = torch.device("cpu")
        self._in_epoch = False
        self._before: dict[str, float] = {}

    @override
    def state_dict(self) -> dict[str, Any]:
        """What has been spent in an unfinished epoch."""
        if not self._in_epoch:
            return {}
        return {"samples": self._samples, "seconds": time.perf_counter() - self._started}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._before = state_dict

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # Lightning does not call on_train_epoch_start for an epoch that is resumed midway.
        reset_peak()
        self._device = pl_module.device
        self._start()
        before, self._before = self._before, {}
        self._samples = int(before.get("samples", 0))
        self._started -= before.get("seconds", 0.0)

    @override
    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._start()

    @override
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._samples += len(batch["label"]) * trainer.world_size
        self._train_seconds = time.perf_counter() - self._started
        self.samples_per_second = self._samples / self._train_seconds

    @override
    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        on_gpu = pl_module.device.type == "cuda"
        line = {
            "epoch": trainer.current_epoch,
            "train_seconds": round(self._train_seconds, 3),
            "samples_per_second": round(self.samples_per_second, 1),
            "epoch_seconds": round(time.perf_counter() - self._started, 3),
            "peak_memory_mb": round(torch.cuda.max_memory_allocated() / 2**20, 1) if on_gpu else None,
            "peak_rss_mb": round(peak_mb(), 1),
        }
        append_line(self.file, to_json(line))
        self._in_epoch = False

    def _start(self) -> None:
        self._samples, self._started, self._in_epoch = 0, time.perf_counter(), True
        if self._device.type == "cuda":  # anything else would start CUDA in a training on the CPU
            torch.cuda.reset_peak_memory_stats()
