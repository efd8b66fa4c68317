"""Losses over logits [T, B, K]. Labels are classes [B] or, for mixed samples, class probabilities [B, K]."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradspike.config.losses import LOSSES
from gradspike.config.schema import LossConfig
from gradspike.errors import ConfigError, first_line


class TimeMeanCrossEntropy(nn.Module):
    """Cross entropy of the mean logits over time, CE(mean_t o[t], y)."""

    Config: ClassVar[type[LossConfig]] = LossConfig

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Scalar loss of logits [T, B, K] and labels [B] or [B, K]."""
        return F.cross_entropy(logits.float().mean(0), labels, label_smoothing=self.label_smoothing)


class TemporalEfficientTraining(nn.Module):
    """TET (Deng et al., ICLR 2022), (1 - weight) mean_t CE(o[t], y) + weight mean((o - target)^2).

    As in the released code, the second mean is over all elements of o, and `target` is a single number. With the target
    "one_hot" each step is compared with the label's class shares instead (1 for the class, 0 for the others), as in the
    code of SLTT (Meng et al., ICCV 2023) and CLIF (Huang et al., ICML 2024). Smoothing changes only the cross entropy.
    """

    Config: ClassVar[type[LossConfig]] = LossConfig

    def __init__(
        self, label_smoothing: float = 0.0, weight: float = 1e-3, target: float | Literal["one_hot"] = 1.0
    ) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing
        self.weight = weight
        self.target = target

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Scalar loss of logits [T, B, K] and labels [B] or [B, K]."""
        logits = logits.float()
        # All steps have the same number of samples, so the mean over all samples is the mean over steps.
        every_step = labels.expand(len(logits), *labels.shape).flatten(0, 1)
        entropy = F.cross_entropy(logits.flatten(0, 1), every_step, label_smoothing=self.label_smoothing)
        pull = F.mse_loss(logits, self._target(logits, labels))
        return (1 - self.weight) * entropy + self.weight * pull

    def _target(self, logits: Tensor, labels: Tensor) -> Tensor:
        if self.target != "one_hot":
            return torch.full_like(logits, self.target)
        shares = labels if labels.ndim == 2 else F.one_hot(labels, logits.shape[2])
        return shares.to(logits.dtype).expand_as(logits)


def build_loss(config: LossConfig) -> nn.Module:
    """Build the loss for training, validation and test.

    A loss outside gradspike is a module that takes its options. Raises ConfigError if it cannot be imported or is none.
    """
    if ":" in config.name:
        return LOSSES.build(nn.Module, config)
    if config.name == "tet":
        return TemporalEfficientTraining(config.label_smoothing, config.tet_lambda, config.tet_target)
    return TimeMeanCrossEntropy(config.label_smoothing)


def check_loss(loss: nn.Module, config: LossConfig, classes: int, time_steps: int) -> None:
    """Raise ConfigError unless the loss gives one number with a gradient, for labels and, if on, for mixed ones."""
    if names := [name for name, _ in loss.named_parameters()]:
        raise ConfigError(f"loss '{config.name}': the optimiser does not train its parameter {names[0]}. Use a buffer.")
    labels = torch.arange(2) % classes
    mixed = F.one_hot(labels, classes).float()
    for given in (labels, mixed) if config.mixup or config.cutmix else (labels,):
        logits = torch.zeros(time_steps, 2, classes, requires_grad=True)
        where = f"loss '{config.name}', logits {list(logits.shape)} and labels {list(given.shape)}:"
        try:
            with torch.enable_grad():
                value = loss(logits, given)
        except Exception as error:  # it is the user's code
            raise ConfigError(f"{where} {type(error).__name__}: {first_line(error)}") from error
        if not isinstance(value, Tensor) or value.ndim or not value.requires_grad:
            shown = f"a tensor of shape {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise ConfigError(f"{where} it returned {shown}; expected a scalar tensor with a gradient.")
