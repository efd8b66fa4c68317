"""The losses compared with their formulas, for hard and mixed labels."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from gradspike.config.compose import load_config
from gradspike.errors import ConfigError
from gradspike.training.losses import build_loss
from helpers.plugin_arrays import SUMMED_ATOL, assert_close, case, cases, time_first

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


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("labels", [HARD, SOFT], ids=["hard", "soft"])
def test_ce_mse_compares_each_step_with_the_label(labels: Tensor, smoothing: float) -> None:
    shares = labels if labels.ndim == 2 else torch.eye(K)[labels]
    expected = torch.zeros(())
    for step in LOGITS:
        expected += (0.95 * cross_entropy(step, shares, smoothing) + 0.05 * (step - shares).square().mean()) / T
    torch.testing.assert_close(loss("loss=ce_mse", f"loss.label_smoothing={smoothing}")(LOGITS, labels), expected)


@pytest.mark.parametrize("word", ["onehot", "true", "[1]", "inf"])
def test_a_target_is_a_number_or_one_hot(word: str) -> None:
    with pytest.raises(ConfigError, match=re.escape("loss.tet_target=") + ".*: must be a finite number or one_hot$"):
        load_config(["loss=tet", f"loss.tet_target={word}"])


@pytest.mark.parametrize("name", cases("tet", "logits", "grad_logits"))
def test_tet_equals_the_released_code(name: str) -> None:
    data = case("tet", name)
    logits = data["logits"].clone().requires_grad_()
    words = [f"loss.tet_lambda={float(data['lamb'])}", f"loss.tet_target={float(data['means'])}"]
    found = loss("loss=tet", *words)(time_first(logits), data["y"])
    found.backward()
    assert_close(found, data["loss"], "loss")
    assert_close(logits.grad, data["grad_logits"], "grad_logits")


@pytest.mark.parametrize("name", cases("sltt", "losses", "logits", "fc_weight"))
def test_ce_mse_equals_the_training_loop_of_sltt(name: str) -> None:
    """The loop's losses of single steps add up to ours, and so do their gradients of the last layer."""
    data = case("sltt", name)
    criterion = loss("loss=ce_mse", f"loss.tet_lambda={float(data['mse_share'])}")
    logits = time_first(data["logits"])
    for step, expected in zip(logits, data["losses"], strict=True):
        assert_close(criterion(step.unsqueeze(0), data["y"]) / len(logits), expected, "loss of a step")
    weight, bias = (data[key].clone().requires_grad_() for key in ("fc_weight", "fc_bias"))
    computed = F.linear(time_first(data["spikes"]).flatten(2), weight, bias)
    assert_close(computed, logits, "logits")
    total = criterion(computed, data["y"])
    total.backward()
    assert_close(total, data["losses"].sum(), "loss")
    assert_close(weight.grad, data["grad_fc_weight"], "grad_fc_weight", atol=SUMMED_ATOL)
    assert_close(bias.grad, data["grad_fc_bias"], "grad_fc_bias", atol=SUMMED_ATOL)


@pytest.mark.parametrize("name", ["ce", "tet", "ce_mse"])
def test_half_precision_logits_are_not_summed_in_half_precision(name: str) -> None:
    logits = LOGITS.bfloat16()
    torch.testing.assert_close(loss(f"loss={name}")(logits, HARD), loss(f"loss={name}")(logits.float(), HARD))


@pytest.mark.parametrize("words", [["loss=ce", "+loss.tet_lambda=0.1"], ["loss=ce_mse", "loss.name=ce"]])
def test_cross_entropy_takes_no_weight_of_a_distance(words: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"tet_lambda=\S+: loss.name=ce has no such term; choose loss=tet or ce_mse"):
        load_config(words)
