"""The detailed results of a test: the confusion matrix, the inputs of each layer, and NeuroBench's metrics.

    confusion.json   {"classes": K, "last": [[label, predicted, samples], ...], "best": [...]}, without zero counts
    layers.json      {"samples": n, "last": [...], "best": [...]}, see `cost.synapses`
    neurobench.json  {"samples": n, "last": {...}, "best": {...}}, see `cost.neurobench`

`last` are the weights after the last epoch, `best` those with the best validation accuracy. The files do not depend on
time or on interruptions. NaN and infinite numbers are null.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torchmetrics import Metric
from typing_extensions import override

from gradspike.cost.neurobench import measure_neurobench
from gradspike.cost.synapses import measure_synapses
from gradspike.json_text import to_json
from gradspike.runs.files import write_record
from gradspike.runs.folder import CONFUSION, LAYERS, NEUROBENCH
from gradspike.training.callbacks.steps import share_of
from gradspike.training.module import SpikingClassifier

SAMPLES = 64


class Confusion(Metric):
    """How often each label was predicted as each class, int64 [K, K], summed over ranks.

    With deterministic algorithms, torchmetrics 1.9 needs K^2 numbers per sample.
    """

    counts: Tensor

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.add_state("counts", torch.zeros(classes, classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, labels: Tensor, predicted: Tensor) -> None:
        """Count a batch's labels and predictions, [B] each."""
        places = labels * self.counts.shape[0] + predicted
        self.counts.view(-1).index_add_(0, places, torch.ones_like(places))

    @override
    def compute(self) -> Tensor:
        return self.counts


class EvaluationRecord(L.Callback):
    """Records each test of a trainer. `taken` returns the record of the last one.

    Measures layers in a pass after the test, on `samples` samples of the first process from all over the split.
    """

    def __init__(self, samples: int = SAMPLES) -> None:
        self.samples = samples
        self._confusion: Confusion | None = None
        self._inputs: list[Tensor] = []
        self._seen: dict[str, Any] = {}

    @override
    def on_test_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
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
        assert self._confusion is not None
        self._confusion.update(batch["label"], outputs)
        part = share_of(self.samples, batch_idx, int(sum(trainer.num_test_batches)))
        if part and trainer.is_global_zero:
            inputs = batch["input"]
            self._inputs.append(inputs.narrow(inputs.ndim - 4, 0, min(part, len(batch["label"]))).clone())

    @override
    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # Other callbacks have removed their hooks by now.
        assert isinstance(pl_module, SpikingClassifier)
        assert self._confusion is not None
        counts = self._confusion.compute().cpu()
        self._confusion = None
        self._seen = {"classes": len(counts), "confusion": [[*pair, int(counts[*pair])] for pair in _pairs(counts)]}
        if self._inputs:
            # torch does not count operations in inference mode, which Lightning uses for tests.
            with torch.inference_mode(False), trainer.precision_plugin.forward_context():
                inputs = torch.cat([part.clone() for part in self._inputs], self._inputs[0].ndim - 4)
                self._inputs = []
                self._seen |= {
                    "samples": inputs.shape[inputs.ndim - 4],
                    "layers": measure_synapses(pl_module.model, inputs),
                    "neurobench": measure_neurobench(pl_module.model, inputs),
                }

    def taken(self) -> dict[str, Any]:
        """The record of the last test."""
        return self._seen


def write_evaluations(folder: Path, seen: dict[str, dict[str, Any]]) -> None:
    """Write confusion.json, layers.json and neurobench.json. seen: the records of `last` and `best`."""
    first = next(iter(seen.values()))
    files = (
        (CONFUSION, {"classes": first["classes"]}, "confusion"),
        (LAYERS, {"samples": first["samples"]}, "layers"),
        (NEUROBENCH, {"samples": first["samples"]}, "neurobench"),
    )
    for name, head, part in files:
        lines = [f'"{key}": {to_json(value)}' for key, value in head.items()]
        lines += [f'"{key}": {to_json(value[part])}' for key, value in seen.items()]
        write_record(folder / name, "{" + ",\n ".join(lines) + "}\n")


def _pairs(counts: Tensor) -> list[list[int]]:
    """The indices of values other than 0."""
    pairs: list[list[int]] = counts.nonzero().tolist()
    return pairs
