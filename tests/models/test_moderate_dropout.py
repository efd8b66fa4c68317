"""Moderate dropout: its equation, its share, and every backbone with it."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gradspike.config.schema import ExperimentConfig
from gradspike.errors import ConfigError
from gradspike.models.moderate_dropout import keep_probability, moderate_dropout
from gradspike.models.registry import MODELS
from gradspike.training.checkpoint import load_checkpoint
from helpers.networks import build, changed, config_for
from helpers.runs import assert_same_run, failed_run
from helpers.runs import train as train_run

T, B, F = 3, 5, 40


def features(seed: int = 0) -> Tensor:
    """Counts of spikes and pooled spikes, as a last layer sees them."""
    generator = torch.Generator().manual_seed(seed)
    return (4 * torch.rand(T, B, F, generator=generator, dtype=torch.float64)).round() / 4


def test_the_equation_number_by_number() -> None:
    x, rate = features(), 0.2
    d = [[sum(float(x[t, b, f]) for t in range(T)) / T for f in range(F)] for b in range(B)]
    lowest, highest = min(min(row) for row in d), max(max(row) for row in d)
    p = [[(value - lowest) / (highest - lowest) for value in row] for row in d]
    mean = sum(map(sum, p)) / (B * F)
    expected = [[min(max(1 - (1 - value) * rate / (1 - mean), 0), 1) for value in row] for row in p]
    keep = keep_probability(x, rate)
    torch.testing.assert_close(keep, torch.tensor(expected, dtype=torch.float64))
    assert float(keep.mean()) == pytest.approx(1 - rate)  # nothing is clipped here


def test_units_that_fire_much_are_kept_more_often() -> None:
    x = torch.zeros(T, 1, 2)
    x[:, :, 1] = 1
    keep = keep_probability(x, 0.4)
    torch.testing.assert_close(keep, torch.tensor([[0.2, 1.0]]))


def test_equal_features_get_ordinary_dropout() -> None:
    for value in (0.0, 1.0):
        torch.testing.assert_close(keep_probability(torch.full((T, B, F), value), 0.3), torch.full((B, F), 0.7))


def test_steps_share_the_mask_and_the_mean_stays() -> None:
    torch.manual_seed(0)
    x = features() + 0.25  # no zeros, so that each dropped one shows
    keep = keep_probability(x, 0.3)
    total = torch.zeros_like(x)
    for _ in range(2000):
        dropped = moderate_dropout(x, 0.3)
        kept = dropped != 0
        assert torch.equal(kept, kept[:1].expand_as(kept))
        torch.testing.assert_close(dropped[kept], (x / keep)[kept])
        total += dropped
    # Six standard deviations of the mean of 2000 draws.
    spread = (x.square() * (1 - keep) / keep.clamp_min(1e-6) / 2000).sqrt()
    assert ((total / 2000 - x).abs() <= 6 * spread + 1e-9)[:, keep > 0].all()


def test_gradient_flows_through_the_probability() -> None:
    x = (features() + 0.25).requires_grad_()
    state = torch.get_rng_state()

    def dropped(values: Tensor) -> Tensor:
        torch.set_rng_state(state)
        return moderate_dropout(values, 0.3)

    assert torch.autograd.gradcheck(dropped, x[:2, :2, :6].detach().requires_grad_())


@pytest.mark.parametrize("name", [name for name in MODELS.names() if name != "timm"])
def test_every_backbone_drops_in_training_alone(name: str) -> None:
    config = config_for(name)
    plain = build(config)
    model = build(changed(config, "model", moderate_dropout=0.5))
    assert model.state_dict().keys() == plain.state_dict().keys()
    model.load_state_dict(plain.state_dict())
    copies = [model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    images = torch.rand(4, 3, config.dataset.image_size, config.dataset.image_size)
    state = torch.get_rng_state()
    trained = []
    for one in copies:
        torch.set_rng_state(state)
        trained.append(one.train()(images))
        assert not torch.equal(one(images), trained[-1])  # new numbers in each pass
    assert all(torch.equal(other, trained[0]) for other in trained[1:])
    assert not torch.equal(trained[0], plain.train()(images))
    model.load_state_dict(plain.state_dict())
    assert torch.equal(model.eval()(images), plain.eval()(images))


def test_a_network_without_a_head_is_refused() -> None:
    config = changed(config_for("timm"), "model", moderate_dropout=0.2)
    with pytest.raises(ConfigError, match=r"model.moderate_dropout=0.2: this network has no linear layer named `head`"):
        build(config)


def test_a_run_with_norms_of_steps_and_dropout_resumes_bit_for_bit(
    tiny_config: Callable[..., ExperimentConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Statistics of every step, and the generator of the drawn features."""
    words = ["norm=tab", "model.moderate_dropout=0.3", "checkpoint.every_n_steps=7"]
    unbroken = train_run(tiny_config(*words))
    ended = tiny_config(*words, f"runs_dir={unbroken.path.parent / 'ended'}")
    run = failed_run(monkeypatch, ended, batch=32)
    assert load_checkpoint(run.last)["global_step"] == 28
    train_run(run.config(), run)
    assert_same_run(unbroken, run)
