"""The contract of methods, as functions of a config, for registered methods and methods of one's own."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from gradspike.collected import collect_losses
from gradspike.methods.options import MethodConfig
from gradspike.methods.registry import METHODS
from gradspike.models.spiking_layers import name_layers
from gradspike.spiking_norm import LayerContext, SpikingNorm
from helpers.part_options import neuron_config, norm_config

T, B, C, SIDE = 3, 5, 3, 4


def method_config(name: str, **options: Any) -> MethodConfig:
    """The validated options of a method, registered or named by its import path."""
    return METHODS.config_class(name).model_validate({"name": name, **options})


def make_layer(
    config: MethodConfig, *, time_steps: int = T, channels: int = C, seed: int = 0, **norm: Any
) -> SpikingNorm:
    context = LayerContext(time_steps, neuron_config("plif"), config, norm_config(**norm))
    layer = SpikingNorm(channels, context)
    # Different gains, so that a method that reads them shows it.
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        layer.norm.weight.mul_(0.8 + 0.4 * torch.rand(channels, generator=generator))
    return layer


def make_input(
    seed: int = 1, *, time_steps: int = T, batch: int = B, channels: int = C, dtype: torch.dtype = torch.float32
) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    y = torch.randn(time_steps * batch, channels, SIDE, SIDE, generator=generator, dtype=torch.float64)
    return (1.5 * y + 0.3).to(dtype)


def step(layer: SpikingNorm, y: Tensor, seed: int = 2) -> tuple[Tensor, Tensor]:
    """One forward and backward pass with the method's own loss. Returns spikes and the gradient of the input."""
    y = y.detach().clone().requires_grad_()
    with collect_losses() as extra:
        spikes = layer(y)
    weights = torch.randn(spikes.shape, generator=torch.Generator().manual_seed(seed)).to(spikes.dtype)
    ((spikes * weights).float().sum() + extra.mean()).backward()
    assert y.grad is not None
    return spikes.detach(), y.grad


def check_binary_and_typed(config: MethodConfig) -> None:
    for training in (True, False):
        for dtype in (torch.float32, torch.float64):
            layer = make_layer(config).to(dtype).train(training)
            spikes, grad = step(layer, make_input(dtype=dtype))
            assert spikes.dtype == grad.dtype == dtype
            assert_emits(layer, spikes)
            assert grad.abs().sum() > 0
        layer = make_layer(config).train(training)
        conv = nn.Conv2d(C, C, 1)
        images = make_input().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16), collect_losses() as extra:
            spikes = layer(conv(images))
        assert spikes.dtype == torch.bfloat16
        assert_emits(layer, spikes)
        (spikes.float().square().sum() + extra.mean()).backward()
        assert images.grad is not None
        assert images.grad.isfinite().all()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())


def assert_emits(layer: SpikingNorm, spikes: Tensor) -> None:
    """Spikes are 0 or 1, or 0 or the threshold if the method scales them; with noise, also values between."""
    one = torch.tensor(1.0)
    if layer.method.scales_spikes:
        one = layer.method.planned(layer.facts(spikes, gradients=False, updates=False)).thresholds[0].detach()
    values = spikes.unique().tolist()
    assert [values[0], values[-1]] == [0.0, one.to(spikes.dtype).item()]
    noisy = layer.training and layer.method.analog_share is not None
    assert (len(values) > 2) == noisy


def check_finite(config: MethodConfig) -> None:
    cases = {
        "zero": torch.zeros(T * B, C, SIDE, SIDE),
        "tiny": 1e-8 * make_input(),
        "huge": 1e4 * make_input(),
        "equal": torch.full((T * B, C, SIDE, SIDE), 0.7),
        "constant huge": torch.full((T * B, C, SIDE, SIDE), 1e4),
        "one sample": make_input(batch=1),
        "one value a channel and step": make_input(batch=1)[:, :, 0, 0],
    }
    for what, y in cases.items():
        for training in (True, False):
            layer = make_layer(config).train(training)
            assert_finite(layer, y, f"{what}, training={training}")
    single = make_input(time_steps=1)
    for y in (single, single[:1], single[:1, :, 0, 0]):
        for training in (True, False):
            assert_finite(make_layer(config, time_steps=1).train(training), y, f"T = 1, {list(y.shape)}, {training}")


def assert_finite(layer: SpikingNorm, y: Tensor, what: str) -> None:
    spikes, grad = step(layer, y)
    assert spikes.isfinite().all(), what
    assert grad.isfinite().all(), what
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None, f"{what}: {name} has no gradient"
        assert parameter.grad.isfinite().all(), f"{what}: {name}"
    for name, buffer in layer.named_buffers():
        assert buffer.isfinite().all(), f"{what}: {name}"
    trace = layer.inspect(y)
    assert trace.widths.min() >= 1e-3, what


def check_learning(config: MethodConfig) -> None:
    """Every parameter receives a nonzero gradient, and training with a large rate keeps decay and widths in range."""
    layer = make_layer(config)
    step(layer, make_input())
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None, f"{name} has no gradient"
        assert parameter.grad.abs().sum() > 0, f"{name} has a gradient of zero"
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    for seed in range(10):
        optimizer.zero_grad()
        step(layer, make_input(seed), seed)
        optimizer.step()
    assert 0 <= layer.neuron.decay <= 1
    trace = layer.inspect(make_input())
    assert trace.widths.isfinite().all()
    assert trace.widths.min() >= 1e-3
    assert trace.thresholds.isfinite().all()


def check_state_dict(config: MethodConfig) -> None:
    trained, fresh = make_layer(config), make_layer(config, seed=5)
    for seed in range(3):
        trained(make_input(seed))
    fresh.load_state_dict(copy.deepcopy(trained.state_dict()))
    trained.eval(), fresh.eval()
    y = make_input(9)
    expected, actual = trained.inspect(y), fresh.inspect(y)
    for name in ("u", "spikes", "thresholds", "widths"):
        assert torch.equal(getattr(actual, name), getattr(expected, name)), name
    assert torch.equal(fresh(y), trained(y))


def check_independence(config: MethodConfig) -> None:
    """Two layers of one context share nothing, and evaluation and inspection change nothing."""
    context = LayerContext(T, neuron_config("plif"), config, norm_config())
    used, other = context.layer(C), context.layer(C)
    assert isinstance(used, SpikingNorm)
    before = copy.deepcopy(other.state_dict())
    optimizer = torch.optim.SGD(used.parameters(), lr=0.5)
    step(used, make_input())
    optimizer.step()
    assert all(torch.equal(value, before[key]) for key, value in other.state_dict().items())
    assert any(not torch.equal(value, before[key]) for key, value in used.state_dict().items())

    before = {name: value.clone() for name, value in [*used.state_dict().items(), *used.named_buffers()]}
    used.train().inspect(make_input(3))
    step(used.eval(), make_input(3))
    used.inspect(make_input(3))
    for name, value in [*used.state_dict().items(), *used.named_buffers()]:
        assert torch.equal(value, before[name]), name


def check_permutation(config: MethodConfig) -> None:
    """The order of samples in a batch does not matter. In float64, where the order of a sum moves no spike."""
    order = torch.tensor([3, 0, 4, 1, 2])
    y = make_input(dtype=torch.float64)
    permuted = y.unflatten(0, (T, B))[:, order].flatten(0, 1)
    for training in (True, False):
        layer = make_layer(config).double().train(training)
        if training and layer.method.analog_share is not None:
            continue  # random numbers follow the place in the batch
        twin = copy.deepcopy(layer)
        expected = layer(y).unflatten(0, (T, B))[:, order]
        actual = twin(permuted).unflatten(0, (T, B))
        assert torch.equal(actual, expected)


def check_named_in_errors(config: MethodConfig) -> None:
    """Errors of a method name the method and the layer."""
    model = nn.Sequential()
    model.add_module("stem", make_layer(config))
    name_layers(model)
    layer = model.get_submodule("stem")
    assert isinstance(layer, SpikingNorm)
    assert layer.layer_name == "stem"
    message = str(layer.method.error("went wrong"))
    assert "stem" in message
    assert (config.label or config.name) in message


CHECKS = [
    check_binary_and_typed,
    check_finite,
    check_learning,
    check_state_dict,
    check_independence,
    check_permutation,
    check_named_in_errors,
]


def descend(layer: SpikingNorm, lr: float, steps: int) -> list[float]:
    """The method's own loss before each of some steps of gradient descent on it."""
    optimizer = torch.optim.SGD(layer.parameters(), lr=lr)
    losses = []
    for _ in range(steps):
        with collect_losses() as extra:
            layer(make_input())
        total = extra.mean()
        assert isinstance(total, Tensor)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        losses.append(total.item())
    return losses
