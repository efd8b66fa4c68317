"""The accuracy of a network in memory on one split of its run's data."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from gradspike.config.schema import ExperimentConfig
from gradspike.data.source import Split
from gradspike.training.build import require_data_of
from gradspike.training.checkpoint import load_checkpoint
from gradspike.training.evaluate import as_evaluated
from gradspike.training.opened import open_split


class SplitAccuracy:
    """Measures networks on one split, on the CPU.

    data_dir, source: where the data or their files are, if they have moved. Raises UserError if they are not those of
    the checkpoint, or the split has no samples.
    """

    def __init__(
        self, config: ExperimentConfig, checkpoint: Path, split: Split, data_dir: str | None, source: str | None
    ) -> None:
        self._opened = open_split(as_evaluated(config, data_dir, "cpu", source=source, engine="eager"), split)
        require_data_of(load_checkpoint(checkpoint), self._opened.data)

    @torch.no_grad()
    def __call__(self, model: nn.Module) -> float:
        """The share of samples whose class has the largest mean of the logits over time."""
        right = 0
        for stored in self._opened.stored_batches():
            batch = self._opened.transformed(stored)
            logits = model(batch["input"])
            right += int((logits.float().mean(0).argmax(1) == batch["label"]).sum())
        return right / len(self._opened.chosen)
