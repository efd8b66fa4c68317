"""The layer of backbones: norm, memory layout, still inputs, ANN twin, errors."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from gradspike.collected import watch_first_layer
from gradspike.engine.base import Engine
from gradspike.methods.registry import METHODS
from gradspike.spiking_norm import LayerContext, NormReLU, SpikingNorm
from helpers.engines import every_engine
from helpers.method_checks import SIDE, B, C, T, make_input, make_layer, method_config
from helpers.part_options import neuron_config, norm_config


@pytest.mark.parametrize("name", ["tdbn", "tdbn_gain"])
def test_norm_is_batch_norm_scaled(name: str) -> None:
    """Both parametrisations against torch.nn.BatchNorm2d, whose gain is 1: outputs and running statistics."""
    layer = SpikingNorm(
        C,
        LayerContext(T, neuron_config(), method_config("lsg"), norm_config(name, alpha=1.6)),
    )
    plain = nn.BatchNorm2d(C)
    for seed in range(3):
        y = make_input(seed)
        torch.testing.assert_close(layer.norm(y), 0.8 * plain(y))
    for key, value in plain.state_dict().items():
        if key not in ("weight", "bias"):
            assert torch.equal(layer.state_dict()[f"norm.{key}"], value), key
    layer.eval(), plain.eval()
    torch.testing.assert_close(layer.norm(make_input(4)), 0.8 * plain(make_input(4)))
    gain = layer.norm.weight * layer.norm.scale
    torch.testing.assert_close(gain, torch.full((C,), 0.8))


@pytest.mark.parametrize("method", ["mpd_agl", "ds_atgo", "psg_pda"])
@pytest.mark.parametrize("space", [(), (SIDE,), (SIDE, SIDE)])
def test_a_still_input_gives_the_numbers_of_the_repeated_one(space: tuple[int, ...], method: str) -> None:
    still = make_layer(method_config(method))
    repeated = copy.deepcopy(still)
    a = torch.randn(B, C, *space, generator=torch.Generator().manual_seed(0)).requires_grad_()
    b = a.detach().clone().requires_grad_()
    for seed in range(2):
        weights = torch.randn(T * B, C, *space, generator=torch.Generator().manual_seed(seed))
        first, second = still(a, static=True), repeated(torch.cat([b] * T))
        assert torch.equal(first, second)
        (first * weights).sum().backward()
        (second * weights).sum().backward()
    assert a.grad is not None
    assert b.grad is not None
    torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-5)
    for key, value in repeated.state_dict().items():
        torch.testing.assert_close(still.state_dict()[key], value, rtol=1e-6, atol=1e-7, msg=key)
    assert torch.equal(still.inspect(a, static=True).spikes, repeated.inspect(torch.cat([b] * T)).spikes)


def test_one_still_value_a_channel() -> None:
    """A single sample without spatial dimensions: its repeats have variance 0, as with a repeated input."""
    still = make_layer(method_config("lsg"))
    repeated = copy.deepcopy(still)
    y = torch.randn(1, C, requires_grad=True)
    spikes = still(y, static=True)
    assert torch.equal(spikes, repeated(torch.cat([y] * T)))
    (gradient,) = torch.autograd.grad(spikes.sum(), y)
    assert torch.equal(gradient, torch.zeros_like(y))
    torch.testing.assert_close(still.norm.running_var, repeated.norm.running_var)
    torch.testing.assert_close(still.norm.running_mean, repeated.norm.running_mean)


class CountCopies(TorchDispatchMode):
    """Counts operations that copy a whole tensor."""

    def __init__(self, numel: int) -> None:
        super().__init__()
        self.numel = numel
        self.copies: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.name()
        moves = name in ("aten::clone", "aten::contiguous", "aten::_to_copy", "aten::copy_", "aten::cat")
        if moves and isinstance(out, torch.Tensor) and out.numel() >= self.numel:
            self.copies.append(name)
        return out


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("method", ["mpd_agl", "ds_atgo", "psg_pda"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_no_hidden_copy_and_memory_format_kept(method: str, channels_last: bool, static: bool) -> None:
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    layer = make_layer(method_config(method), channels=4)
    y = make_input(channels=4, time_steps=1 if static else T).contiguous(memory_format=memory_format).requires_grad_()
    grad = torch.randn(T * B, 4, SIDE, SIDE).contiguous(memory_format=memory_format)
    with CountCopies(T * B * 4 * SIDE * SIDE) as counter:
        spikes = layer(y, static=static)
        (grad_y,) = torch.autograd.grad(spikes, y, grad)
    assert counter.copies == []
    assert spikes.is_contiguous(memory_format=memory_format)
    assert grad_y.is_contiguous(memory_format=memory_format)
    assert spikes.is_contiguous() != channels_last


def test_relu_twin() -> None:
    context = LayerContext(T, neuron_config(), method_config("lsg"), norm_config(), activation="relu")
    layer = context.layer(C)
    assert isinstance(layer, NormReLU)
    twin, plain = copy.deepcopy(layer), nn.BatchNorm2d(C)
    y = make_input(time_steps=1).contiguous(memory_format=torch.channels_last)
    repeated = torch.cat([y] * T)
    torch.testing.assert_close(layer(repeated), plain(repeated).relu())
    still = twin(y, static=True)
    assert still.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(still, layer(repeated))
    torch.testing.assert_close(twin.norm.running_var, plain.running_var)


def test_state_keys_are_stable() -> None:
    assert set(make_layer(method_config("ds_atgo")).state_dict()) == {
        "norm.weight",
        "norm.bias",
        "norm.running_mean",
        "norm.running_var",
        "norm.num_batches_tracked",
        "neuron.decay_logit",
        "method.running_threshold",
    }


def test_inputs_that_do_not_fit_are_named() -> None:
    layer = make_layer(method_config("lsg"))
    layer.layer_name = "stage1.0"
    with pytest.raises(ValueError, match=r"stage1.0.*T = 3"):
        layer(make_input()[:-1])
    with pytest.raises(ValueError, match=r"stage1.0.*expected"):
        layer(make_input(channels=C + 1))


@pytest.mark.parametrize("method", METHODS.names())
@pytest.mark.parametrize("static", [False, True])
def test_without_a_norm_the_input_is_the_current(method: str, static: bool) -> None:
    """The same spikes and gradients as with a norm that changes nothing; the method sees gamma_mean = 1."""
    context = LayerContext(T, neuron_config("plif"), method_config(method), norm_config(eps=1e-12))
    bare, normed = context.neuron_layer(C).double(), context.layer(C).double()
    assert isinstance(bare, SpikingNorm)
    assert isinstance(normed, SpikingNorm)
    normed.load_state_dict(bare.state_dict(), strict=False)
    normed.norm.eval(), normed.norm.running_var.fill_(normed.norm.scale**2)
    assert not any(key.startswith("norm.") for key in bare.state_dict())
    assert bare.facts(torch.zeros(1), gradients=True).gamma_mean is None
    inputs = make_input(time_steps=1 if static else T, dtype=torch.float64)
    a, b = inputs.clone().requires_grad_(), inputs.clone().requires_grad_()
    weights = torch.randn(T * B, C, SIDE, SIDE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    spikes = bare(a, static=static)
    torch.manual_seed(0)
    expected = normed(b, static=static)
    torch.testing.assert_close(spikes, expected)
    (spikes * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(a.grad, b.grad)
    # A trace has 0 and 1, and no noise.
    fired = bare.eval()(inputs, static=static).unflatten(0, (T, -1)) != 0
    assert torch.equal(bare.inspect(inputs, static=static).spikes, fired.double())


def test_relu_twin_without_a_norm() -> None:
    context = LayerContext(T, neuron_config(), method_config("lsg"), norm_config(), activation="relu")
    layer = context.neuron_layer(C)
    assert isinstance(layer, NormReLU)
    assert list(layer.parameters()) == []
    y = make_input(time_steps=1)
    assert torch.equal(layer(y, static=True), torch.cat([y.relu()] * T))


@every_engine
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("static", [False, True], ids=["frames", "still"])
def test_a_bad_sample_shows_in_what_the_first_layer_receives(engine: Engine, bad: float, static: bool) -> None:
    layers = nn.Sequential(make_layer(method_config("mpd_agl")), make_layer(method_config("mpd_agl")))
    y = make_input(0)[: B if static else T * B].clone()
    y[1 if static else B + 1, C - 1] = bad  # of the second step
    for mode in (True, False):
        layers.train(mode)
        with watch_first_layer() as watch:
            spikes = layers[1](layers[0](y, static=static))
        assert watch.sums is not None
        assert watch.sums.isfinite().tolist() == [sample != 1 for sample in range(B)]
        assert spikes.isfinite().all()  # so spikes would not show it
    with watch_first_layer() as watch:
        layers[1](layers[0](make_input(0)))
    assert watch.sums is not None
    assert watch.sums.isfinite().all()
