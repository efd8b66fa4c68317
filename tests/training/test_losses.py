"""The losses compared with their formulas, for hard and mixed labels."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gradspike.config.compose import load_config
from gradspike.training.losses import build_loss

T, B, K = 3, 4, 5
LOGITS = torch.randn(T, B, K, generator=torch.Generator().manual_seed(0))
HARD = torch.tensor([4, 0, 2, 2])
SOFT = torch.rand(B, K, generator=torch.Generator().manual_seed(1)).softmax(1)


def cross_entropy(logits: Tensor, shares: Tensor, smoothing: float) -> Tensor:
    """Of logits and shares [B, K], number by number."""
    smoothed = (1 - smoothing) * shares + smoothing / K
    total = torch.zeros(())
    for sample in range(B):
        norm = logits[sample].exp().sum().log()
        for label in range(K):
            total = total - smoothed[sample, label] * (logits[sample, label] - norm)
    return total / B


def loss(*words: str) -> torch.nn.Module:
    return build_loss(load_config(list(words)).loss)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("labels", [HARD, SOFT], ids=["hard", "soft"])
def test_cross_entropy_is_that_of_the_mean_over_time(labels: Tensor, smoothing: float) -> None:
    shares = labels if labels.ndim == 2 else torch.eye(K)[labels]
    expected = cross_entropy((LOGITS[0] + LOGITS[1] + LOGITS[2]) / 3, shares, smoothing)
    torch.testing.assert_close(loss("loss=ce", f"loss.label_smoothing={smoothing}")(LOGITS, labels), expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("labels", [HARD, SOFT], ids=["hard", "soft"])
def test_tet_is_the_mean_over_time_and_a_pull(labels: Tensor, smoothing: float) -> None:
    shares = labels if labels.ndim == 2 else torch.eye(K)[labels]
    entropy = sum(cross_entropy(step, shares, smoothing) for step in LOGITS) / T
    pull = sum((float(value) - 0.5) ** 2 for value in LOGITS.flatten()) / (T * B * K)
    words = ["loss=tet", "loss.tet_lambda=0.2", "loss.tet_target=0.5", f"loss.label_smoothing={smoothing}"]
    torch.testing.assert_close(loss(*words)(LOGITS, labels), 0.8 * entropy + 0.2 * pull)


def test_tet_defaults_are_those_of_the_paper() -> None:
    entropy = sum(cross_entropy(step, torch.eye(K)[HARD], 0.0) for step in LOGITS) / T
    expected = (1 - 1e-3) * entropy + 1e-3 * (LOGITS - 1).square().mean()
    torch.testing.assert_close(loss("loss=tet")(LOGITS, HARD), expected)


@pytest.mark.parametrize("name", ["ce", "tet"])
def test_half_precision_logits_are_not_summed_in_half_precision(name: str) -> None:
    logits = LOGITS.bfloat16()
    torch.testing.assert_close(loss(f"loss={name}")(logits, HARD), loss(f"loss={name}")(logits.float(), HARD))
