"""What a test leaves behind besides its few numbers: who was taken for whom, and what each layer was given.

    confusion.json   {"classes": K, "last": [[label, predicted, samples], ...], "best": [...]}, pairs that occurred
    layers.json      {"samples": n, "last": [...], "best": [...]}, see `describe.synapses`

`last` are the weights after the last epoch, `best` the best ones by validation. Nothing here depends on the clock or on
whether the run was interrupted. A number that is not finite is null.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torchmetrics import Metric
from typing_extensions import override

from gradspike.cost.synapses import measure_synapses
from gradspike.runs.files import finite, write_atomically
from gradspike.runs.folder import CONFUSION, LAYERS
from gradspike.training.module import SpikingClassifier

SAMPLES = 64


class Confusion(Metric):
    """How often each label was taken for each class, int64 [K, K], summed over ranks.

    Not torchmetrics' own, which needs K^2 numbers a sample where torch is asked to be deterministic (1.9).
    """

    counts: Tensor

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.add_state("counts", torch.zeros(classes, classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, labels: Tensor, predicted: Tensor) -> None:
        """Count labels and predictions, [B] each."""
        places = labels * self.counts.shape[0] + predicted
        self.counts.view(-1).index_add_(0, places, torch.ones_like(places))

    def compute(self) -> Tensor:
        """The counts so far."""
        return self.counts


class EvaluationRecord(L.Callback):
    """Looks on at each test of a trainer; `take` hands over what was seen, `write` makes the two files.

    Layers are measured on `samples` samples spread over the split, in a pass of their own after the test (those of the
    first process, where there are several).
    """

    def __init__(self, samples: int = SAMPLES) -> None:
        self.samples = samples
        self._confusion: Confusion | None = None
        self._inputs: list[Tensor] = []
        self._seen: dict[str, Any] = {}

    @override
    def on_test_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start anew."""
        assert isinstance(pl_module, SpikingClassifier)
        self._confusion = Confusion(pl_module.config.dataset.classes).to(pl_module.device)
        self._inputs = []

    @override
    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count the batch, and keep its part of the samples."""
        assert self._confusion is not None
        self._confusion.update(batch["label"], outputs)
        batches = int(sum(trainer.num_test_batches))
        part = (batch_idx + 1) * self.samples // batches - batch_idx * self.samples // batches
        if part and trainer.is_global_zero:
            inputs = batch["input"]
            self._inputs.append(inputs.narrow(inputs.ndim - 4, 0, min(part, len(batch["label"]))).clone())

    @override
    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Sum over processes, and measure the layers; by now nobody else counts what they do."""
        assert isinstance(pl_module, SpikingClassifier)
        assert self._confusion is not None
        counts = self._confusion.compute().cpu()
        self._confusion = None
        self._seen = {"classes": len(counts), "confusion": [[*pair, int(counts[*pair])] for pair in _pairs(counts)]}
        if self._inputs:
            # Lightning tests in inference mode, in which torch does not count operations.
            with torch.inference_mode(False), trainer.precision_plugin.forward_context():
                inputs = torch.cat([part.clone() for part in self._inputs], self._inputs[0].ndim - 4)
                self._inputs = []
                self._seen |= {
                    "samples": inputs.shape[inputs.ndim - 4],
                    "layers": measure_synapses(pl_module.model, inputs),
                }

    def take(self) -> dict[str, Any]:
        """What the last test showed."""
        return self._seen


def write_evaluations(folder: Path, seen: dict[str, dict[str, Any]]) -> None:
    """Write both files; `seen` is what `EvaluationRecord.take` gave for `last` and `best`."""
    first = next(iter(seen.values()))
    files = (
        (CONFUSION, {"classes": first["classes"]}, "confusion"),
        (LAYERS, {"samples": first["samples"]}, "layers"),
    )
    for name, head, part in files:
        lines = [f'"{key}": {json.dumps(value)}' for key, value in head.items()]
        lines += [f'"{key}": {json.dumps(finite(value[part]), allow_nan=False)}' for key, value in seen.items()]
        write_atomically(folder / name, "{" + ",\n ".join(lines) + "}\n")


def _pairs(counts: Tensor) -> list[list[int]]:
    pairs: list[list[int]] = counts.nonzero().tolist()
    return pairs
