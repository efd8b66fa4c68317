"""Losses over logits [T, B, K] and labels [B]."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from gradspike.config import LossConfig


class TimeMeanCrossEntropy(nn.Module):
    """Cross entropy of the logits' mean over time, CE(mean_t o[t], y)."""

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Scalar loss of logits [T, B, K] and labels [B]."""
        return F.cross_entropy(logits.float().mean(0), labels, label_smoothing=self.label_smoothing)


def build_loss(config: LossConfig) -> nn.Module:
    """The loss a configuration names."""
    return TimeMeanCrossEntropy(config.label_smoothing)
