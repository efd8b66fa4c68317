"""Checks of every backbone with every method, over both registries, so they cover new ones. Inputs are random."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from gradspike.config.compose import load_config
from gradspike.config.schema import ExperimentConfig
from gradspike.models.registry import MODELS
from gradspike.spiking_norm import NormReLU, SpikingNorm
from gradspike.training.build import build_model
from gradspike.training.losses import TimeMeanCrossEntropy
from helpers.networks import KINDS, PAIRS, SOME_PAIRS, build, changed, config_for, train
from helpers.part_options import neuron_config


def pair(model: str, method: str, neuron: Literal["lif", "plif"]) -> ExperimentConfig:
    """The configuration of `model` with `method` and `neuron`, without composing it again."""
    other = config_for("spiking_cnn", f"method={method}")
    return config_for(model).model_copy(update={"method": other.method, "neuron": neuron_config(neuron)})


def inputs_for(config: ExperimentConfig, batch: int = 3) -> Tensor:
    size = (batch, config.dataset.channels, config.dataset.image_size, config.dataset.image_size)
    if config.dataset.kind == "frames":
        size = (config.time_steps, *size)
    return torch.randn(size, generator=torch.Generator().manual_seed(0))


def assert_same_state(actual: nn.Module, expected: nn.Module, tolerance: float = 0.0) -> None:
    states = actual.state_dict(), expected.state_dict()
    assert states[0].keys() == states[1].keys()
    for key, value in states[1].items():
        torch.testing.assert_close(states[0][key], value, rtol=tolerance, atol=tolerance / 10, msg=key)


WITH_NEURONS = [(name, method, "plif") for name, method in PAIRS]
WITH_NEURONS += [(name, "mpd_agl", "lif") for name in MODELS.names()]


@pytest.mark.parametrize(("name", "method", "neuron"), WITH_NEURONS)
def test_gradients_and_state_with_every_method(name: str, method: str, neuron: Literal["lif", "plif"]) -> None:
    """A training step reaches every parameter; a loaded state continues like the original."""
    config = pair(name, method, neuron)
    model, inputs, labels = build(config), inputs_for(config), torch.tensor([0, 1, 2])
    train(model, inputs, labels, steps=1)
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())
    first = next(parameter.grad for parameter in model.parameters() if parameter.ndim == 4)
    assert first is not None
    assert first.any(), "no gradient arrives at the first convolution"

    other = build(config, seed=1)
    other.load_state_dict(model.state_dict())
    for training in (False, True):  # training mode last, because it changes buffers
        torch.manual_seed(0)
        expected = model.train(training)(inputs)
        torch.manual_seed(0)
        assert torch.equal(other.train(training)(inputs), expected)
    assert_same_state(other, model)


@pytest.mark.slow  # test_engines.py compares single layers, and a whole run of the smallest backbone
def test_a_backbone_on_compiled_neurons_has_the_gradients_and_state_of_the_reference() -> None:
    networks = []
    for engine in ("eager", "compiled"):
        config = config_for("resnet19", f"engine={engine}")
        model = build(config).double()
        train(model, inputs_for(config).double(), torch.tensor([0, 1, 2]), steps=1, lr=0.0)
        networks.append(model)
    expected, actual = networks
    assert_same_state(actual, expected, tolerance=1e-6)
    for (name, one), other in zip(expected.named_parameters(), actual.parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad, msg=name)


@pytest.mark.parametrize(("name", "method"), SOME_PAIRS)
def test_overfits_one_batch_with_every_network_and_every_method(name: str, method: str) -> None:
    config = pair(name, method, "plif")
    model, inputs, labels = build(config), inputs_for(config, batch=4), torch.arange(4)
    for _ in range(20):
        train(model, inputs, labels, steps=5, lr=0.05)
        if torch.equal(model(inputs).mean(0).argmax(1), labels):
            return
    pytest.fail("100 steps were not enough for 4 samples")


@pytest.mark.parametrize("activation", ["spike", "relu"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", MODELS.names())
def test_logits_of_images_and_frames(name: str, kind: str, activation: str) -> None:
    """Channels, classes and image size come from the data set; the twin has the same layers without neurons."""
    config = changed(config_for(name, kind=kind), "model", activation=activation)
    config = changed(config, "dataset", classes=7)
    model, inputs = build(config), inputs_for(config)
    logits = model(inputs)
    assert logits.shape == (config.time_steps, 3, 7)
    TimeMeanCrossEntropy()(logits, torch.tensor([0, 1, 2])).backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())
    kinds = {type(layer) for layer in model.modules()}
    assert (SpikingNorm in kinds) == (activation == "spike")
    assert not (NormReLU in kinds and activation == "spike")
    if activation == "relu" and kind == "image" and not config.model.feeds_back:
        torch.testing.assert_close(logits[0], logits[1])


@pytest.mark.parametrize("activation", ["spike", "relu"])
@pytest.mark.parametrize("name", MODELS.names())
def test_a_still_image_is_the_same_as_its_repetition(name: str, activation: str) -> None:
    """The first current of a still image is computed once; repeating the image in time gives the same numbers."""
    config = changed(config_for(name), "model", activation=activation)
    model, repeated = build(config), build(config)
    images = inputs_for(config)
    for training in (False, True):
        model.train(training), repeated.train(training)
        still, frames = model(images), repeated(images.expand(config.time_steps, *images.shape))
        torch.testing.assert_close(still, frames, rtol=1e-4, atol=1e-5)
    # torch's batch norm, which a twin may have, cannot know that its input stands for T copies.
    if not any(isinstance(layer, nn.BatchNorm2d) for layer in model.modules()):
        assert_same_state(model, repeated, tolerance=1e-5)


@pytest.mark.parametrize("name", MODELS.names())
def test_the_first_convolution_sees_a_still_image_once(name: str) -> None:
    config = config_for(name)
    model = build(config)
    seen: list[int] = []
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    for convolution in convolutions:
        convolution.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    model(inputs_for(config))
    first, *others = seen
    assert first == 3
    assert set(others) <= {3 * config.time_steps}


@pytest.mark.parametrize("name", MODELS.names())
def test_channels_last_gives_the_same_numbers(name: str) -> None:
    config = config_for(name)
    model, images = build(config).eval(), inputs_for(config)
    expected = model(images)
    model.to(memory_format=torch.channels_last)
    layouts: list[bool] = []
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d) and layer.out_channels > 1:
            layer.register_forward_hook(lambda module, inputs, output: layouts.append(is_channels_last(output)))
    actual = model(images.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)
    assert all(layouts)


def is_channels_last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last)


def test_spiking_cnn_parameters_by_hand() -> None:
    """depth 3, width 32, one input channel: 3x3 convolutions, gain, bias and decay of each layer, linear layer over a
    2x2 grid.
    """
    model = build_model(load_config(["dataset=digits", "model.width=32", "model.depth=3", "engine=eager"]))
    convolutions = 9 * (1 * 32 + 32 * 64 + 64 * 128)
    layers = 2 * (32 + 64 + 128) + 3
    assert sum(parameter.numel() for parameter in model.parameters()) == convolutions + layers + (128 * 4 * 10 + 10)
    names = [layer.layer_name for layer in model.modules() if isinstance(layer, SpikingNorm)]
    assert names == ["neurons.0", "neurons.1", "neurons.2"]


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_spiking_cnn_at_every_depth_that_is_allowed(depth: int) -> None:
    config = config_for("spiking_cnn", f"model.depth={depth}", "model.pool=max")
    assert build_model(config)(inputs_for(config)).shape == (config.time_steps, 3, 10)
