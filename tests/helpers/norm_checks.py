"""The contract of norms, as functions of a config, for registered norms and norms of one's own."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from gradspike.models.parameters import undecayed_parameters
from gradspike.norms.base import ChannelNorm, build_norm
from gradspike.norms.options import NormConfig
from gradspike.spiking_norm import LayerContext, NormReLU, SpikingNorm
from helpers.method_checks import SIDE, B, C, T, make_input, method_config, step
from helpers.part_options import neuron_config


def make_norm(config: NormConfig, *, time_steps: int = T, channels: int = C) -> ChannelNorm:
    """A norm whose parameters are no longer all equal, and differ from step to step if each has its own."""
    norm = build_norm(config, channels, v_threshold=0.5, time_steps=time_steps)
    return shaken(norm)


def make_normed_layer(config: NormConfig, *, time_steps: int = T) -> SpikingNorm:
    layer = LayerContext(time_steps, neuron_config("plif"), method_config("mpd_agl"), config).layer(C)
    assert isinstance(layer, SpikingNorm)
    assert layer.norm is not None
    shaken(layer.norm)
    if layer.potential_norm is not None:
        shaken(layer.potential_norm)
    return layer


def shaken(norm: ChannelNorm) -> ChannelNorm:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.add_(0.3 * torch.rand(parameter.shape, generator=generator) - 0.1)
    return norm


def check_still_is_repeated(config: NormConfig) -> None:
    """An input that is the same at every step gives the numbers of T copies: output, gradients, statistics."""
    for space in ((), (SIDE,), (SIDE, SIDE)):
        still = make_normed_layer(config).double()
        repeated = copy.deepcopy(still)
        a = torch.randn(B, C, *space, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
        b = a.detach().clone().requires_grad_()
        weights = torch.randn(T * B, C, *space, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        for training in (True, False):
            still.train(training), repeated.train(training)
            first, second = still(a, static=True), repeated(torch.cat([b] * T))
            assert torch.equal(first, second)
            (first * weights).sum().backward()
            (second * weights).sum().backward()
        torch.testing.assert_close(a.grad, b.grad)
        for (name, mine), (_, other) in zip(still.named_parameters(), repeated.named_parameters(), strict=True):
            torch.testing.assert_close(mine.grad, other.grad, msg=name)
        for name, value in repeated.state_dict().items():
            torch.testing.assert_close(still.state_dict()[name], value, msg=name)


def check_gradients(config: NormConfig) -> None:
    """Exact gradients of input and parameters in training and evaluation, compared with finite differences."""
    for repeats in (1, T):
        for training in (True, False):
            norm = make_norm(config).double().train(training)
            norm(make_input(7, dtype=torch.float64))  # running statistics other than 0 and 1
            names = [name for name, _ in norm.named_parameters()]

            def current(
                y: Tensor, *values: Tensor, norm: Any = norm, names: Any = names, repeats: int = repeats
            ) -> Any:
                replaced = dict(zip(names, values, strict=True))
                return torch.func.functional_call(norm, replaced, (y,), {"repeats": repeats, "update": False})

            y = make_input(2, time_steps=T // repeats, batch=2, dtype=torch.float64)[:, :, :2, :2]
            inputs = [y.requires_grad_(), *(value.detach().clone().requires_grad_() for value in norm.parameters())]
            assert torch.autograd.gradcheck(current, inputs)


def check_learning(config: NormConfig) -> None:
    """Every parameter of the norm receives a nonzero gradient through the neuron, and has no weight decay."""
    layer = make_normed_layer(config)
    step(layer, make_input())
    names = {name for name, _ in layer.named_parameters() if "norm." in name}
    assert {"norm.weight", "norm.bias"} <= names <= undecayed_parameters(layer)
    for name in names:
        grad = layer.get_parameter(name).grad
        assert grad is not None, name
        assert grad.isfinite().all(), name
        assert grad.abs().sum() > 0, name


def check_state(config: NormConfig) -> None:
    """A state dict restores the norm. Evaluation, inspection and `update=False` change nothing."""
    trained, fresh = make_normed_layer(config), make_normed_layer(config)
    for seed in range(3):
        trained(make_input(seed))
    assert any(not torch.equal(value, fresh.state_dict()[name]) for name, value in trained.state_dict().items())
    fresh.load_state_dict(copy.deepcopy(trained.state_dict()))
    before = copy.deepcopy(trained.state_dict())
    trained.inspect(make_input(8))
    assert trained.norm is not None
    trained.norm(make_input(8), update=False)
    trained.eval(), fresh.eval()
    assert torch.equal(trained(make_input(9)), fresh(make_input(9)))
    trained.inspect(make_input(8))
    for name, value in trained.state_dict().items():
        assert torch.equal(value, before[name]), name


def check_formats(config: NormConfig) -> None:
    """The memory format is kept, and both formats give the same numbers."""
    found = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        norm = make_norm(config, channels=4)
        y = make_input(channels=4).contiguous(memory_format=memory_format).requires_grad_()
        current = norm(y)
        weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(3))
        (grad,) = torch.autograd.grad(current, y, weights.contiguous(memory_format=memory_format))
        assert current.is_contiguous(memory_format=memory_format)
        assert grad.is_contiguous(memory_format=memory_format)
        found.append((current.contiguous(), grad.contiguous()))
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-6)


def check_dtypes(config: NormConfig) -> None:
    """Currents come in the dtype of the input. bf16 differs by its rounding alone: statistics are in float32."""
    assert make_norm(config).double()(make_input(dtype=torch.float64)).dtype == torch.float64
    y = (make_input() + 30).bfloat16()  # a mean far above the spread
    for training in (True, False):
        norm = make_norm(config).train(training)
        twin = copy.deepcopy(norm)
        current = norm(y)
        assert current.dtype == torch.bfloat16
        torch.testing.assert_close(current.float(), twin(y.float()), rtol=1e-2, atol=1e-2)
        for name, value in twin.named_buffers():
            torch.testing.assert_close(norm.get_buffer(name), value, msg=name)


def check_finite(config: NormConfig) -> None:
    """No NaN for inputs of zero, equal, huge, or a single value per channel."""
    cases = {
        "zero": torch.zeros(T * B, C, SIDE, SIDE),
        "huge": 1e4 * make_input(),
        "equal": torch.full((T * B, C, SIDE, SIDE), 0.7),
        "one sample": make_input(batch=1),
        "one value a channel and step": make_input(batch=1)[:, :, 0, 0],
    }
    singles = {"T = 1": make_input(time_steps=1), "one value": make_input(time_steps=1, batch=1)[:, :, 0, 0]}
    for what, y, time_steps in [*((w, y, T) for w, y in cases.items()), *((w, y, 1) for w, y in singles.items())]:
        for training in (True, False):
            norm = make_norm(config, time_steps=time_steps).train(training)
            y = y.detach().clone().requires_grad_()
            norm(y).square().sum().backward()
            assert make_normed_layer(config, time_steps=time_steps).train(training)(y).isfinite().all(), what
            tensors = {"y": y.grad, **{name: one.grad for name, one in norm.named_parameters()}}
            tensors |= dict(norm.named_buffers())
            for name, value in tensors.items():
                assert value is not None, f"{what}: {name}"
                assert value.isfinite().all(), f"{what}: {name}"


def check_places(config: NormConfig) -> None:
    """A layer's methods see a mean gain of 1 at the start; a norm may stand alone; the ANN twin is plain batch norm."""
    context = LayerContext(T, neuron_config("plif"), method_config("mpd_agl", v_threshold=0.5), config)
    layer = context.layer(C)
    assert isinstance(layer, SpikingNorm)
    gamma_mean = layer.facts(torch.zeros(1), gradients=True).gamma_mean
    assert gamma_mean is not None
    torch.testing.assert_close(gamma_mean, torch.ones(()))
    alone = context.channel_norm(C, branches=2)
    assert alone(make_input()).shape == make_input().shape
    twin = LayerContext(T, context.neuron, context.method, config, activation="relu").layer(C)
    assert isinstance(twin, NormReLU)
    plain = nn.BatchNorm2d(C, eps=config.eps, momentum=config.momentum)
    torch.testing.assert_close(twin(make_input()), plain(make_input()).relu())


CHECKS = [
    check_still_is_repeated,
    check_gradients,
    check_learning,
    check_state,
    check_formats,
    check_dtypes,
    check_finite,
    check_places,
]
