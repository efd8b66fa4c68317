"""The output neuron of LTMD: against arrays of its released code, and in every backbone."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

from gradspike.errors import ConfigError
from gradspike.models.output_neuron import THRESHOLD, LtmdOutput
from gradspike.models.registry import MODELS
from helpers.networks import build, changed, config_for
from helpers.plugin_arrays import SUMMED_ATOL, assert_close, case, cases, fold


@pytest.mark.parametrize("name", cases("ltmd", "lateral_weight", "outputs"))
def test_the_released_neuron(name: str) -> None:
    data = case("ltmd", name)
    assert float(data["threshold_raw"].tanh()) == pytest.approx(THRESHOLD)
    neuron = LtmdOutput(data["x"].shape[1])
    with torch.no_grad():
        neuron.lateral.weight.copy_(data["lateral_weight"])
    x = fold(data["x"]).requires_grad_()
    outputs = neuron(x)
    assert_close(outputs, fold(data["outputs"]), "outputs")
    outputs.backward(fold(data["grad_outputs"]))
    assert_close(x.grad, fold(data["grad_x"]), "grad_x")
    assert_close(neuron.lateral.weight.grad, data["grad_lateral_weight"], "grad_lateral_weight", atol=SUMMED_ATOL)


@pytest.mark.parametrize("name", [name for name in MODELS.names() if name != "timm"])
def test_every_backbone_has_it_behind_its_last_layer(name: str) -> None:
    config = config_for(name)
    plain, model = build(config), build(changed(config, "model", readout="ltmd"))
    model.load_state_dict(plain.state_dict(), strict=False)
    assert set(model.state_dict()) - set(plain.state_dict()) == {"output_neuron.lateral.weight"}
    plain.eval(), model.eval()
    data = config.dataset
    shape = (2, data.channels, data.image_size, data.image_size)
    images = torch.rand(shape if data.kind == "image" else (config.time_steps, *shape))
    currents, outputs = plain(images), model(images)
    assert torch.equal(outputs, model.output_neuron(currents.flatten(0, 1)).view_as(outputs))
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin(images), outputs)


def test_potentials_keep_their_precision_in_bf16() -> None:
    torch.manual_seed(0)
    neuron, x = LtmdOutput(8), torch.randn(16, 5).bfloat16()
    assert torch.equal(neuron(x), neuron(x.float()).bfloat16())


def test_a_network_without_a_head_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"model\.readout=ltmd: this network has no linear layer named `head`"):
        build(changed(config_for("timm"), "model", readout="ltmd"))
