"""Learning rates that fall from layer to layer towards the input (`optimizer.layer_decay`)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from gradspike.config.compose import load_config
from gradspike.errors import ConfigError
from gradspike.models.registry import MODELS
from gradspike.training.build import build_model, input_shape
from gradspike.training.layers import layer_numbers
from gradspike.training.module import SpikingClassifier
from gradspike.training.optim import build_optimizer
from helpers.networks import DEEPER, config_for


@pytest.mark.parametrize("name", [name for name in MODELS.names() if name not in DEEPER | {"timm"}])
def test_layers_follow_each_other_as_the_convolutions_run(name: str) -> None:
    config = config_for(name)
    layers, model = layer_numbers(config), build_model(config)
    assert layers.keys() == {name for name, _ in model.named_parameters()}
    last = max(layers.values())
    assert set(layers.values()) == set(range(last + 1))
    assert {name.partition(".")[0] for name, layer in layers.items() if layer == last} == {"head"}

    order: dict[str, None] = {}
    for path, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_pre_hook(lambda *_, path=path: order.setdefault(path))
    model(torch.zeros(input_shape(config, batch=1)))
    numbers = [layers[f"{path}.weight"] for path in order]
    assert numbers == sorted(numbers)
    assert numbers[0] == 0


def test_the_layers_of_a_transformer_and_of_a_chain_of_convolutions() -> None:
    layers = layer_numbers(config_for("qkformer"))
    assert {".".join(name.split(".")[:2]): layer for name, layer in layers.items() if "head" not in name} == {
        "embeddings.0": 0, "stages.0": 1, "embeddings.1": 2, "stages.1": 3, "embeddings.2": 4, "stages.2": 5,
    }  # fmt: skip
    layers = layer_numbers(config_for("spiking_cnn"))
    assert [layers[name] for name in ("convs.0.weight", "neurons.0.norm.weight", "convs.1.weight")] == [0, 0, 1]


def rates(*words: str) -> dict[str, float]:
    module = SpikingClassifier(load_config(["model.width=4", "model.depth=2", "optimizer.lr=0.1", *words]))
    names = {id(parameter): name for name, parameter in module.model.named_parameters()}
    groups = build_optimizer(module.config.optimizer, module.model, layers=module._layers).param_groups
    return {names[id(parameter)]: group["lr"] for group in groups for parameter in group["params"]}


def test_rates_fall_towards_the_input_and_multiply_with_the_others() -> None:
    found = rates("method=psg", "optimizer.layer_decay=0.5", "+optimizer.groups={convs.1.*:{lr:3}}", "engine=eager")
    assert found["head.weight"] == pytest.approx(0.1)
    assert found["convs.1.weight"] == pytest.approx(0.15)
    assert found["neurons.1.norm.weight"] == pytest.approx(0.05)
    assert found["convs.0.weight"] == found["neurons.0.neuron.decay_logit"] == pytest.approx(0.025)
    own = rates("method=asgl", "optimizer.layer_decay=0.5", "engine=eager")
    assert own["neurons.0.method.alpha_raw"] == 3e-4
    assert own["neurons.0.norm.weight"] == pytest.approx(0.025)
    assert set(rates("method=fixed_sg", "engine=eager").values()) == {0.1}


def test_the_weights_are_those_of_a_run_without_it() -> None:
    words = ["model.width=4", "engine=eager", "optimizer.layer_decay"]
    results = []
    for value in ("1", "0.5"):
        torch.manual_seed(3)
        model = SpikingClassifier(load_config([*words[:-1], f"{words[-1]}={value}"])).model
        results.append((model.state_dict(), torch.rand(1)))
    for name, tensor in results[0][0].items():
        assert torch.equal(tensor, results[1][0][name]), name
    assert torch.equal(results[0][1], results[1][1])


def test_networks_whose_layers_cannot_be_told_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"layer_decay=0\.5: the order of the layers of timm networks"):
        SpikingClassifier(config_for("timm", "optimizer.layer_decay=0.5"))
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "net_with_idle_layer.py").write_text(
        "import torch\n"
        "from torch import nn\n"
        "from gradspike.models.options import ModelConfig\n"
        "class Net(nn.Module):\n"
        "    Config = ModelConfig\n"
        "    def __init__(self, config, dataset, context):\n"
        "        super().__init__()\n"
        "        self.conv, self.layer = nn.Conv2d(1, 4, 3), context.layer(4)\n"
        "        self.idle, self.head = nn.Linear(4, 4), nn.Linear(4, dataset.classes)\n"
        "    def forward(self, x):\n"
        "        return self.head(self.layer(self.conv(x), True).mean((2, 3))).unflatten(0, (4, -1))\n"
    )
    words = ["model.name=net_with_idle_layer:Net", "~model.width", "~model.depth", "~model.pool", "engine=eager"]
    with pytest.raises(ConfigError, match=r"that runs holds the parameter 'idle\.weight'"):
        SpikingClassifier(load_config([*words, "optimizer.layer_decay=0.5"]))
    for value in ("0", "1.5", "null"):
        with pytest.raises(ConfigError, match=f"optimizer.layer_decay={value}"):
            load_config([f"optimizer.layer_decay={value}"])
