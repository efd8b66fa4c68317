"""TEBN and TAB compared with arrays of their released code; tests/reference/plugins/README.md describes them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from gradspike.engine.base import Engine
from gradspike.norms.base import ChannelNorm, build_norm
from gradspike.spiking_norm import LayerContext, SpikingNorm
from helpers.engines import every_engine
from helpers.method_checks import method_config
from helpers.part_options import neuron_config, norm_config
from helpers.plugin_arrays import (
    SUMMED_ATOL,
    Case,
    all_cases,
    assert_close,
    assert_spikes,
    batches,
    case,
    cases,
    fold,
    part,
    time_first,
)

FACTORS = {"tebn": "time_scale", "tab": "time_scale_root"}
"""The name of p in the files, and in our state dict."""
NORMS = [(file, name) for file in FACTORS for name in cases(file, "b0/grad_y", "eval/y")]
LAYERS = cases("tebn", "conv_weight", "grad_spikes")


def unfold(x: Tensor, time_steps: int) -> Tensor:
    """[T*B, ...] as [B, T, ...]."""
    return x.unflatten(0, (time_steps, -1)).transpose(0, 1)


def load(norm: ChannelNorm, data: Case, factor: str) -> None:
    """Parameters of a case, whose names are ours."""
    with torch.no_grad():
        for name in ("weight", "bias", factor):
            norm.get_parameter(name).copy_(data[name])


def test_every_case_of_a_norm_is_tested() -> None:
    for file in FACTORS:
        tested = {name for of, name in NORMS if of == file} | (set(LAYERS) if file == "tebn" else set())
        neurons = set(cases(file, "membrane", "grad_spikes", lacks=("conv_weight",)))  # tested with the neurons
        assert all_cases(file) - neurons == tested


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
