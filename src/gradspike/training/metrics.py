"""Running loss and accuracy of a split. They stay on the device until read."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy
from typing_extensions import override


class WeightedMean(Metric):
    """Weighted mean of scalars over all ranks. Reads no value before `compute`.

    torchmetrics 1.9's MeanMetric waits for the GPU to check for NaN; without that check it ignores the weights.
    """

    total: Tensor
    weight: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("weight", torch.zeros(()), dist_reduce_fx="sum")

    def update(self, value: Tensor, weight: int) -> None:
        """Add a scalar."""
        self.total += value.detach().float() * weight
        self.weight += weight

    @override
    def compute(self) -> Tensor:
        """The mean; 0 before the first `update`."""
        return self.total / self.weight.clamp(min=1)


class Meter(nn.Module):
    """Mean loss and accuracy (a fraction) over the samples of all ranks since the last `results`."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.loss = WeightedMean()
        self.accuracy = MulticlassAccuracy(classes, average="micro", validate_args=False)

    def update(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add a batch: its mean loss, logits [T, B, K] and labels [B]. Reads no value."""
        self.loss.update(loss, len(labels))
        self.accuracy.update(logits.detach().float().mean(0), labels)

    def results(self, split: str) -> dict[str, float]:
        """`{"<split>/loss": ..., "<split>/accuracy": ...}`; resets the counts."""
        values = {f"{split}/{name}": float(metric.compute()) for name, metric in self._named()}
        for _, metric in self._named():
            metric.reset()
        return values

    def running(self) -> tuple[float, float]:
        """Loss and accuracy so far on this rank. Waits for the device."""
        counts = self.accuracy.metric_state
        right, wrong = (torch.as_tensor(counts[name]).sum() for name in ("tp", "fn"))
        return float(self.mean_loss()), float(right / (right + wrong).clamp(min=1))

    def mean_loss(self) -> Tensor:
        """Mean loss so far on this rank, on the device."""
        return self.loss.total / self.loss.weight.clamp(min=1)

    def state(self) -> dict[str, dict[str, Any]]:
        """The counts of this rank as plain tensors."""
        return {
            name: {key: torch.as_tensor(value).detach().cpu().clone() for key, value in metric.metric_state.items()}
            for name, metric in self._named()
        }

    def restore(self, states: dict[str, dict[str, Any]]) -> None:
        """Restore the counts of `state`."""
        for name, metric in self._named():
            for key, value in states.get(name, {}).items():
                setattr(metric, key, value.to(getattr(metric, key).device))
                metric._update_count = max(metric._update_count, 1)  # otherwise compute() warns

    def _named(self) -> list[tuple[str, Metric]]:
        return [("loss", self.loss), ("accuracy", self.accuracy)]
