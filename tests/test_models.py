"""What every backbone must do; runs over the registry, so that a new one is covered without a new test."""

from __future__ import annotations

import pytest
import torch

from gradspike.cli import load_config
from gradspike.config import ExperimentConfig
from gradspike.losses import TimeMeanCrossEntropy
from gradspike.models.build import build_model
from gradspike.models.registry import MODELS
from gradspike.spiking_norm import NormReLU, SpikingNorm

SMALL = {"spiking_cnn": ["model.width=4"]}


def config_for(name: str, *more: str) -> ExperimentConfig:
    return load_config([f"model={name}", *SMALL.get(name, []), *more])


def inputs_for(config: ExperimentConfig, batch: int = 3) -> torch.Tensor:
    size = (batch, config.dataset.channels, config.dataset.image_size, config.dataset.image_size)
    if config.dataset.kind == "frames":
        size = (config.time_steps, *size)
    return torch.randn(size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("activation", ["spike", "relu"])
@pytest.mark.parametrize("dataset", ["digits", "digits_events"])
@pytest.mark.parametrize("name", MODELS.names())
def test_logits_gradients_and_state(name: str, dataset: str, activation: str) -> None:
    config = config_for(name, f"dataset={dataset}", f"model.activation={activation}")
    torch.manual_seed(0)
    model = build_model(config)
    inputs = inputs_for(config)
    logits = model(inputs)
    assert logits.shape == (config.time_steps, 3, config.dataset.classes)
    TimeMeanCrossEntropy()(logits, torch.tensor([0, 1, 2])).backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())
    kinds = {type(layer) for layer in model.modules()}
    assert (SpikingNorm in kinds, NormReLU in kinds) == (activation == "spike", activation == "relu")

    torch.manual_seed(1)
    other = build_model(config)
    other.load_state_dict(model.state_dict())
    model.eval()
    other.eval()
    assert torch.equal(model(inputs), other(inputs))


@pytest.mark.parametrize("name", MODELS.names())
def test_a_still_image_is_the_same_as_its_repetition(name: str) -> None:
    """The first current of a still image is computed once; repeating the image in time gives the same numbers."""
    config = config_for(name)
    for training in (True, False):
        torch.manual_seed(0)
        model, repeated = build_model(config), build_model(config)
        repeated.load_state_dict(model.state_dict())
        model.train(training)
        repeated.train(training)
        images = inputs_for(config)
        still, frames = model(images), repeated(images.expand(config.time_steps, *images.shape))
        torch.testing.assert_close(still, frames, rtol=1e-5, atol=1e-6)
        for key, value in repeated.state_dict().items():
            torch.testing.assert_close(model.state_dict()[key], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", MODELS.names())
def test_channels_last_gives_the_same_numbers(name: str) -> None:
    config = config_for(name)
    torch.manual_seed(0)
    model = build_model(config).eval()
    images = inputs_for(config)
    expected = model(images)
    model.to(memory_format=torch.channels_last)
    actual = model(images.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MODELS.names())
def test_overfits_one_batch(name: str) -> None:
    config = config_for(name)
    torch.manual_seed(0)
    model = build_model(config)
    images, labels = inputs_for(config, batch=8), torch.arange(8) % 4
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    loss = TimeMeanCrossEntropy()
    for _ in range(60):
        optimizer.zero_grad()
        value = loss(model(images), labels)
        value.backward()
        optimizer.step()
    assert (model(images).mean(0).argmax(1) == labels).float().mean() == 1.0


def test_spiking_cnn_parameters_by_hand() -> None:
    """depth 3, width 32, one input channel: 3x3 convolutions, gain, bias and decay of each layer, linear layer over a
    2x2 grid.
    """
    model = build_model(load_config(["dataset=digits", "model.width=32", "model.depth=3"]))
    convolutions = 9 * (1 * 32 + 32 * 64 + 64 * 128)
    layers = 2 * (32 + 64 + 128) + 3
    assert sum(parameter.numel() for parameter in model.parameters()) == convolutions + layers + (128 * 4 * 10 + 10)
    names = [layer.layer_name for layer in model.modules() if isinstance(layer, SpikingNorm)]
    assert names == ["neurons.0", "neurons.1", "neurons.2"]


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_spiking_cnn_at_every_depth_that_is_allowed(depth: int) -> None:
    config = config_for("spiking_cnn", f"model.depth={depth}", "model.pool=max")
    assert build_model(config)(inputs_for(config)).shape == (config.time_steps, 3, 10)
