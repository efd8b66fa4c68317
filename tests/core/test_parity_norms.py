"""TEBN, TAB and MPBN compared with arrays of their released code; tests/reference/plugins/README.md describes them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from gradspike.engine.base import Engine, EngineOptions
from gradspike.methods.base import LayerFacts, build_method
from gradspike.neurons.base import build_neuron
from gradspike.norms.base import ChannelNorm, build_norm, build_potential_norm
from gradspike.spiking_norm import LayerContext, SpikingNorm
from gradspike.surrogate import UNIT_DSPIKE
from helpers.engines import every_engine
from helpers.method_checks import method_config
from helpers.part_options import neuron_config, norm_config
from helpers.plugin_arrays import (
    SUMMED_ATOL,
    Case,
    assert_close,
    assert_spikes,
    batches,
    case,
    cases,
    fold,
    part,
    stepped,
    time_first,
)

FACTORS = {"tebn": "time_scale", "tab": "time_scale_root"}
"""The name of p in the files, and in our state dict."""
NORMS = [(file, name) for file in FACTORS for name in cases(file, "b0/grad_y", "eval/y")]
LAYERS = cases("tebn", "conv_weight", "grad_spikes")
POTENTIALS = cases("mpbn", "temperature", "b0/normalised", "eval/spikes")


def unfold(x: Tensor, time_steps: int) -> Tensor:
    """[T*B, ...] as [B, T, ...]."""
    return x.unflatten(0, (time_steps, -1)).transpose(0, 1)


def load(norm: ChannelNorm, data: Case, factor: str) -> None:
    """Parameters of a case, whose names are ours."""
    with torch.no_grad():
        for name in ("weight", "bias", factor):
            norm.get_parameter(name).copy_(data[name])


@pytest.mark.parametrize(("file", "name"), NORMS)
def test_batches_in_a_row_then_evaluation(file: str, name: str) -> None:
    data = case(file, name)
    channels, time_steps = data["b0/x"].shape[2], data["b0/x"].shape[1]
    norm = build_norm(norm_config(file), channels, v_threshold=1.0, time_steps=time_steps)
    factor = FACTORS[file]
    load(norm, data, factor)
    for batch in batches(data):
        norm.zero_grad()
        x = batch["x"].clone().requires_grad_()
        y = norm(fold(x))
        y.backward(fold(batch["grad_y"]))
        assert_close(unfold(y, time_steps), batch["y"], "y")
        assert_close(x.grad, batch["grad_x"], "grad_x")
        for parameter in ("weight", "bias", factor):
            grad = norm.get_parameter(parameter).grad
            assert_close(grad, batch[f"grad_{parameter}"], f"grad_{parameter}", atol=SUMMED_ATOL)
        for buffer in ("running_mean", "running_var"):
            assert_close(norm.get_buffer(buffer), batch[buffer], buffer)
    norm.eval()
    last = part(data, "eval")
    assert_close(unfold(norm(fold(last["x"])), time_steps), last["y"], "eval y")


@every_engine
@pytest.mark.parametrize("name", LAYERS)
def test_conv_tebn_lif(engine: Engine, name: str) -> None:
    """The whole layer, with a triangular surrogate of half base 1."""
    data = case("tebn", name)
    time_steps, channels = data["x"].shape[1], data["weight"].numel()
    method = method_config("fixed_sg", v_threshold=float(data["v_threshold"]), width=1.0, surrogate="triangular")
    neuron = neuron_config("lif", decay=float(data["decay"]))
    layer = SpikingNorm(channels, LayerContext(time_steps, neuron, method, norm_config("tebn")))
    assert layer.norm is not None
    load(layer.norm, data, "time_scale")
    x = data["x"].clone().requires_grad_()
    weight = data["conv_weight"].clone().requires_grad_()
    y = F.conv2d(fold(x), weight, data["conv_bias"], padding=1)
    with torch.no_grad():
        assert_close(unfold(layer.norm(y, update=False), time_steps), data["current"], "current")
    spikes = layer(y)
    assert_spikes(unfold(spikes, time_steps), data["spikes"])
    spikes.backward(fold(data["grad_spikes"]))
    assert_close(x.grad, data["grad_x"], "grad_x")
    found: dict[str, Any] = {"conv_weight": weight, **dict(layer.norm.named_parameters())}
    for key in ("conv_weight", "weight", "bias", "time_scale"):
        assert_close(found[key].grad, data[f"grad_{key}"], f"grad_{key}", atol=SUMMED_ATOL)
    for buffer in ("running_mean", "running_var"):
        assert_close(layer.norm.get_buffer(buffer), data[buffer], buffer)
    assert_close(layer.inspect(y.detach()).u, time_first(data["membrane"]), "membrane")


@every_engine
@pytest.mark.parametrize("name", POTENTIALS)
def test_mpbn_between_charge_and_fire(engine: Engine, name: str) -> None:
    """Batches in a row, each of T batches of the potential's norm, then evaluation with its running statistics."""
    data = case("mpbn", name)
    _, time_steps, channels = data["b0/x"].shape[:3]
    threshold = float(data["threshold"])
    norm = build_potential_norm(norm_config("mpbn"), channels)
    assert norm is not None
    with torch.no_grad():
        norm.weight.copy_(data["weight"]), norm.bias.copy_(data["bias"])
    lif = neuron_config("lif", decay=float(data["decay"]), fires="above_threshold")
    neuron = build_neuron(lif, time_steps, channels, threshold)
    method = build_method(
        method_config("fixed_sg", v_threshold=threshold, width=float(data["temperature"])), time_steps, channels
    )

    def run(x: Tensor, *, training: bool, keep: bool = False) -> Any:
        assert neuron.decay is not None
        facts = LayerFacts(time_steps, threshold, neuron.decay, training=training, gradients=training, updates=not keep)
        options = EngineOptions(UNIT_DSPIKE, keep_membrane=keep, potential_norm=norm.train(training))
        return engine(x, neuron, method, facts, options)

    for batch in batches(data):
        norm.zero_grad()
        x = time_first(batch["x"]).requires_grad_()
        assert_close(run(x, training=True, keep=True).membrane, time_first(batch["normalised"]), "normalised")
        spikes = run(x, training=True).spikes
        assert_spikes(spikes, time_first(batch["spikes"]))
        charged = torch.stack([u for u, _ in stepped(neuron, x.detach(), spikes.detach(), threshold)])
        assert_close(charged, time_first(batch["membrane"]), "membrane")
        spikes.backward(time_first(batch["grad_spikes"]))
        assert_close(x.grad, time_first(batch["grad_x"]), "grad_x")
        for parameter in ("weight", "bias"):
            grad = norm.get_parameter(parameter).grad
            assert_close(grad, batch[f"grad_{parameter}"], f"grad_{parameter}", atol=SUMMED_ATOL)
        for buffer in ("running_mean", "running_var"):
            assert_close(norm.get_buffer(buffer), batch[buffer], buffer)
    last = part(data, "eval")
    assert_spikes(run(time_first(last["x"]), training=False).spikes, time_first(last["spikes"]))
