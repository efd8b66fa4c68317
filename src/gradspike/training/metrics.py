"""Running loss and accuracy of one split, kept on the device until they are asked for."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy


class WeightedMean(Metric):
    """Weighted mean of scalars, summed over ranks; reads no value before `compute`.

    Not torchmetrics' MeanMetric: with its look for NaN on it makes a GPU wait, with the look off it ignores the weights
    (1.9).
    """

    total: Tensor
    weight: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("weight", torch.zeros(()), dist_reduce_fx="sum")

    def update(self, value: Tensor, weight: int) -> None:
        """Count a scalar with its weight."""
        self.total += value.detach().float() * weight
        self.weight += weight

    def compute(self) -> Tensor:
        """The mean; 0 before anything was counted."""
        return self.total / self.weight.clamp(min=1)


class Meter(nn.Module):
    """Mean loss and accuracy (a fraction) over all samples seen since the last `results`, summed over ranks."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.loss = WeightedMean()
        self.accuracy = MulticlassAccuracy(classes, average="micro", validate_args=False)

    def update(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Count a batch: its mean loss, logits [T, B, K] and labels [B]. No value is read."""
        self.loss.update(loss, len(labels))
        self.accuracy.update(logits.detach().float().mean(0), labels)

    def results(self, split: str) -> dict[str, float]:
        """`{"<split>/loss": ..., "<split>/accuracy": ...}`; starts anew."""
        values = {f"{split}/{name}": float(metric.compute()) for name, metric in self._named()}
        for _, metric in self._named():
            metric.reset()
        return values

    def running(self) -> tuple[float, float]:
        """Loss and accuracy so far on this rank (waits for the device)."""
        counts = self.accuracy.metric_state
        right, wrong = (torch.as_tensor(counts[name]).sum() for name in ("tp", "fn"))
        return float(self.mean_loss()), float(right / (right + wrong).clamp(min=1))

    def mean_loss(self) -> Tensor:
        """Mean loss so far on this rank, on the device."""
        return self.loss.total / self.loss.weight.clamp(min=1)

    def state(self) -> dict[str, dict[str, Any]]:
        """The counts as plain tensors, summed over ranks, since one checkpoint serves all of them."""
        states = {}
        for name, metric in self._named():
            with metric.sync_context():
                states[name] = {
                    key: torch.as_tensor(value).detach().cpu().clone() for key, value in metric.metric_state.items()
                }
        return states

    def restore(self, states: dict[str, dict[str, Any]]) -> None:
        """Take the counts of `state` back (on one rank only, or they would be summed again)."""
        for name, metric in self._named():
            for key, value in states.get(name, {}).items():
                setattr(metric, key, value.to(getattr(metric, key).device))
                metric._update_count = max(metric._update_count, 1)  # else compute() warns that nothing was counted

    def _named(self) -> list[tuple[str, Metric]]:
        return [("loss", self.loss), ("accuracy", self.accuracy)]
