"""The NIR graph of a network computes the network's spikes; what NIR cannot describe is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nir
import nirtorch
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gradspike
from gradspike.config.schema import ExperimentConfig
from gradspike.errors import ConfigError
from gradspike.spiking_norm import SpikingNorm
from gradspike.tools.export.graph import nir_graph
from gradspike.tools.export.thresholds import use_mean_thresholds
from gradspike.training.build import build_model
from helpers.layer_spikes import spikes_of
from helpers.nir_network import NirNetwork
from helpers.nirtorch_nodes import NODES

Compose = Callable[..., ExperimentConfig]
SMALL = ["engine=eager", "model.width=4", "model.depth=2"]
RESNET = ["engine=eager", "model=resnet19", "model.width=0.05"]


def node_of(name: str, nodes: Any) -> str:
    """The node that emits what a layer does."""
    return next(node for node in (f"{name}.scale", f"{name}.threshold", name) if node in nodes)


def trained_by_chance(model: nn.Module) -> nn.Module:
    """Weights and statistics as after a training: norms that change their input, learned values off their start."""
    torch.manual_seed(0)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.3)
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
    for parameter in model.parameters():
        parameter.data += torch.randn_like(parameter) * (0.2 if parameter.ndim < 2 else 0.02)
    return model.double().eval()


@pytest.mark.parametrize(
    "words",
    [
        [*SMALL, "neuron=plif"],
        [*SMALL, "neuron=lif", "neuron.v_reset=-0.1", "neuron.decay_input=true"],
        [*SMALL, "neuron=plif", "neuron.reset=soft"],
        [*SMALL, "neuron=lif", "neuron.reset=soft", "neuron.decay_input=true"],
        [*SMALL, "neuron=if"],
        [*SMALL, "neuron=if", "neuron.reset=soft", "norm=bn"],
        [*SMALL, "neuron=lif", "neuron.fires=above_threshold", "method=ltmd"],
        [*SMALL, "method=diet_snn"],
        RESNET,
        [*RESNET, "model.residual=basic", "dataset=digits_events"],
        ["engine=eager", "model=spiking_mlp", "model.hidden=[24,16]"],
        ["engine=eager", "model=spiking_rnn", "model.hidden=[24,16]", "dataset=digits_events", "neuron.reset=soft"],
        ["engine=eager", "recipe=none", "model=vgg9", "model.width=0.0625", "model.hidden=64", "model.pool=avg"],
    ],
    ids=lambda words: ",".join(word.partition("=")[2] for word in words[2:]),
)
def test_a_nir_graph_computes_the_spikes_of_the_network(words: list[str], tmp_path: Path) -> None:
    config = gradspike.load_config(words)
    data, steps = config.dataset, config.time_steps
    model = trained_by_chance(build_model(config))
    inputs = torch.randn(20, data.channels, data.image_size, data.image_size, dtype=torch.float64)
    frames = inputs.expand(steps, *inputs.shape)
    if data.kind == "frames":
        inputs = frames = (torch.rand(frames.shape) < 0.2).double()
    nir.write(tmp_path / "net.nir", nir_graph(model, frames[0, :1], {}))
    seen = NirNetwork(nir.read(tmp_path / "net.nir"))(frames)
    expected = spikes_of(model, inputs, steps)
    torch.testing.assert_close(seen["output"], expected.pop("output"))
    assert any(spikes.mean() > 0 for spikes in expected.values())
    for name, spikes in expected.items():
        torch.testing.assert_close(seen[node_of(name, seen)], spikes, msg=name)


@pytest.mark.parametrize(
    "words",
    [
        [*SMALL, "neuron=plif", "neuron.reset=soft"],
        [*SMALL, "neuron=if", "neuron.reset=soft"],
        ["engine=eager", "model=spiking_rnn", "model.hidden=[24,16]", "neuron=plif", "neuron.reset=soft"],
    ],
    ids=lambda words: ",".join(word.partition("=")[2] for word in words[1:]),
)
def test_nirtorch_wires_the_soft_reset_and_the_feedback_as_they_are_meant(words: list[str]) -> None:
    config = gradspike.load_config(words)
    model = trained_by_chance(build_model(config))
    inputs = torch.randn(20, 1, 8, 8, dtype=torch.float64)
    theirs = nirtorch.nir_to_torch(nir_graph(model, inputs[:1], {}), NODES, dtype=torch.float64)
    state, logits = None, []
    with torch.no_grad():
        for _ in range(config.time_steps):
            output, state = theirs(inputs, state)
            logits.append(output)
        torch.testing.assert_close(torch.stack(logits), model(inputs))


def test_a_threshold_that_is_met_exactly_fires(tiny_config: Compose) -> None:
    model = build_model(tiny_config("neuron=if", "method.v_threshold=0.5")).eval()
    for name in ("neurons.0", "neurons.1"):
        theta = nir_graph(model, torch.zeros(1, 1, 8, 8), {}).nodes[name].v_threshold
        assert (np.float32(0.5) > theta).all()
        assert (np.nextafter(theta, np.float32(1)) == 0.5).all()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["model.pool=max"], "layer 'pool': MaxPool2d has no equivalent in NIR. Average pooling has one"),
        (
            ["model=spikformer", "model.dim=16", "model.heads=2", "model.depth=1"],
            "layer 'patches.pools.2': MaxPool2d has",
        ),
        (["norm=tebn"], "layer 'neurons.0': its norm has values for each time step"),
        (["norm=mpbn"], "layer 'neurons.0': its norm of the membrane potential has no equivalent"),
        (["neuron=klif"], "layer 'neurons.0': neuron 'klif' has no equivalent in NIR, which has lif, plif and if"),
        (["neuron=psn", "method=fixed_sg"], "layer 'neurons.0': neuron 'psn' has no equivalent"),
        (["model.readout=ltmd"], "model.readout=ltmd: "),
        (["model.encoder=latency", "dataset.normalize=unit"], "model.encoder=latency: encodes an image over all"),
        (["model.activation=relu"], "layer 'neurons.0': ReLU has no equivalent"),
        (
            ["model=resnet19", "model.width=0.05", "model.residual=and"],
            "operation mul on the output of 'blocks.0.neuron2'",
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_nir_cannot_describe_is_refused_with_the_name_of_the_layer(words: list[str], said: str) -> None:
    base = ["engine=eager"] if words[0].startswith("model=") else SMALL
    model = build_model(gradspike.load_config([*base, *words])).eval()
    with pytest.raises(ConfigError) as refused:
        nir_graph(model, torch.zeros(1, 1, 8, 8), {})
    assert said in str(refused.value)


def test_thresholds_that_differ_between_steps_are_refused(tiny_config: Compose) -> None:
    model = build_model(tiny_config("method=ds_atgo")).eval()
    nir_graph(model, torch.zeros(1, 1, 8, 8), {})  # before training all are V_th
    first = next(layer for layer in model.modules() if isinstance(layer, SpikingNorm))
    first.method.get_buffer("running_threshold")[1] = 0.25
    with pytest.raises(ConfigError, match=r"'neurons.0': .* another threshold at each time step \(0.25 to 1\)"):
        nir_graph(model, torch.zeros(1, 1, 8, 8), {})


def test_networks_outside_the_backbones_that_hide_a_computation_are_refused() -> None:
    layers = gradspike.SpikingLayers("fixed_sg", neuron="lif")

    class Hidden(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.fires = nn.Conv2d(1, 2, 3), layers.layer(2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            x += 1
            return self.fires(x)  # type: ignore[no-any-return]

    with pytest.raises(ConfigError, match="operation add_ on the output of 'first': has no"):
        nir_graph(Hidden().eval(), torch.zeros(1, 1, 8, 8), {})


def test_mean_thresholds_are_one_number_for_all_steps(tiny_config: Compose) -> None:
    model = build_model(tiny_config("method=ds_atgo", "neuron=lif")).double().eval()
    first, second = (layer for layer in model.modules() if isinstance(layer, SpikingNorm))
    first.method.get_buffer("running_threshold").copy_(torch.tensor([0.5, 0.25, 1.0, 0.75]))
    assert use_mean_thresholds(model) == 1
    inputs = torch.randn(20, 1, 8, 8, dtype=torch.float64)
    graph = nir_graph(model, inputs[:1], {})
    assert graph.nodes["neurons.0"].v_threshold == pytest.approx(0.625)
    assert graph.nodes["neurons.1"].v_threshold == pytest.approx(second.v_threshold)
    torch.testing.assert_close(NirNetwork(graph)(inputs.expand(4, *inputs.shape))["output"], model(inputs))
