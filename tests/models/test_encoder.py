"""Images as spikes: statistics, repeatability, and every backbone with an encoder."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from gradspike.config.schema import ExperimentConfig
from gradspike.models.encoder import ENCODERS, latency, poisson
from gradspike.models.registry import MODELS
from gradspike.training.checkpoint import load_checkpoint
from helpers.networks import build, changed, config_for, train
from helpers.runs import assert_same_run, failed_run
from helpers.runs import train as train_run

VALUES = torch.linspace(0, 1, 256).view(1, 1, 16, 16)


def encoded(encoder: str, model: str = "spiking_cnn", activation: str = "spike") -> ExperimentConfig:
    return changed(config_for(model, "dataset.normalize=unit"), "model", encoder=encoder, activation=activation)


def pictures(config: ExperimentConfig, batch: int = 4) -> Tensor:
    size = config.dataset.image_size
    return torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("training", [True, False])
def test_poisson_rates_are_the_values(training: bool) -> None:
    """Over 4,000 steps, each pixel's rate is its value within five standard deviations; 0 never spikes, 1 always."""
    torch.manual_seed(0)
    steps = 4000
    spikes = poisson(VALUES, steps, training)
    assert set(spikes.unique().tolist()) == {0.0, 1.0}
    rates, spread = spikes.mean(0), (VALUES * (1 - VALUES) / steps).sqrt()
    assert ((rates - VALUES).abs() <= 5 * spread).all()
    assert float(((rates - VALUES) / spread.clamp_min(1e-9))[0, 0].flatten()[1:-1].std()) == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("training", [True, False])
def test_poisson_steps_and_pixels_are_independent(training: bool) -> None:
    torch.manual_seed(0)
    centred = poisson(torch.full((1, 1, 32, 32), 0.5), 200, training).flatten(1) - 0.5
    count = centred.numel()
    for product in (centred[1:] * centred[:-1], centred[:, 1:] * centred[:, :-1]):
        assert abs(float(product.mean())) < 5 * 0.25 / count**0.5


def test_poisson_in_training_follows_torchs_generator() -> None:
    """New numbers in each pass and for each sample; the same numbers from the state of a checkpoint."""
    state = torch.get_rng_state()
    half = torch.full((2, 3, 8, 8), 0.5)
    first, second = poisson(half, 4, True), poisson(half, 4, True)
    assert not torch.equal(first, second)
    assert not torch.equal(first[:, 0], first[:, 1])
    torch.set_rng_state(state)
    assert torch.equal(poisson(half, 4, True), first)
    assert torch.equal(poisson(half, 4, True), second)


def test_poisson_in_evaluation_is_repeatable() -> None:
    """The same spikes in every call and batch; torch's generator does not change."""
    batch = torch.rand(5, 3, 8, 8)
    state = torch.get_rng_state()
    spikes = poisson(batch, 4, False)
    assert torch.equal(poisson(batch, 4, False), spikes)
    assert torch.equal(poisson(batch[3:4], 4, False), spikes[:, 3:4])
    assert torch.equal(poisson(batch.contiguous(memory_format=torch.channels_last), 4, False), spikes)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("steps", [1, 2, 5, 16])
def test_latency(steps: int) -> None:
    """One spike per pixel, none for 0; brighter pixels earlier, and an equal range of values for each step."""
    spikes = latency(VALUES, steps)
    assert set(spikes.unique().tolist()) <= {0.0, 1.0}
    counts = spikes.sum(0).flatten()
    assert counts[0] == 0
    assert counts[1:].eq(1).all()
    when = spikes.argmax(0).flatten()[1:]
    assert (when.diff() <= 0).all()
    assert when[-1] == 0
    assert when[0] == steps - 1
    shares = torch.bincount(when, minlength=steps) / len(when)
    assert (shares - 1 / steps).abs().max() <= 2 / 255


@pytest.mark.parametrize("name", ENCODERS)
def test_layout_and_type_are_kept(name: str) -> None:
    images = torch.rand(2, 3, 8, 8, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    spikes = ENCODERS[name](images, 3, True)
    assert spikes.shape == (3, 2, 3, 8, 8)
    assert spikes.dtype == torch.float64
    assert spikes.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("activation", ["spike", "relu"])
@pytest.mark.parametrize("encoder", sorted(ENCODERS))
@pytest.mark.parametrize("name", MODELS.names())
def test_every_backbone_behind_an_encoder(name: str, encoder: str, activation: str) -> None:
    """Equals the network with the spikes as frames; parameter names are those without an encoder."""
    config = encoded(encoder, name, activation)
    model, direct = build(config).eval(), build(encoded("direct", name, activation), seed=1).eval()
    assert model.state_dict().keys() == direct.state_dict().keys()
    direct.load_state_dict(model.state_dict())
    images = pictures(config)
    logits = model(images)
    assert torch.equal(logits, direct(ENCODERS[encoder](images, 2, False)))
    assert torch.equal(logits, model(images))
    model.train()(images).square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("encoder", sorted(ENCODERS))
def test_learns_from_spikes(encoder: str) -> None:
    config = changed(encoded(encoder), "model", width=8)
    model, images, labels = build(config), pictures(config), torch.arange(4)
    train(model, images, labels, steps=60)
    assert torch.equal(model.train()(images).mean(0).argmax(1), labels)


def test_training_goes_on_the_same_from_a_saved_random_state() -> None:
    """Weights and torch's random state are enough to continue a training with an encoder bit for bit."""
    config = encoded("poisson")
    model, images, labels = build(config), pictures(config), torch.arange(4)
    train(model, images, labels, steps=1)
    resumed: nn.Module = pickle.loads(pickle.dumps(model))
    state = torch.get_rng_state()
    train(model, images, labels, steps=2)
    torch.set_rng_state(state)
    train(resumed, images, labels, steps=2)
    for key, value in model.state_dict().items():
        assert torch.equal(resumed.state_dict()[key], value), key


def test_a_run_that_ends_within_an_epoch_resumes_bit_for_bit(
    tiny_config: Callable[..., ExperimentConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["model.encoder=poisson", "dataset.normalize=unit", "checkpoint.every_n_steps=7"]
    unbroken = train_run(tiny_config(*words))
    ended = tiny_config(*words, f"runs_dir={unbroken.path.parent / 'ended'}")
    run = failed_run(monkeypatch, ended, batch=32)
    assert load_checkpoint(run.last)["global_step"] == 28
    train_run(run.config(), run)
    assert_same_run(unbroken, run)


def test_frames_are_refused() -> None:
    model = build(encoded("latency"))
    with pytest.raises(ValueError, match=r"model\.encoder=latency is for still images"):
        copy.deepcopy(model)(torch.rand(2, 4, 3, 8, 8))
