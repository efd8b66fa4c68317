"""The forms of timm's residual blocks: neurons before the sum, first in the branch, or after the sum."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, Literal

import pytest
import timm
import torch
from timm.layers import DropPath
from torch import Tensor, nn

from gradspike.config.compose import load_config
from gradspike.errors import ConfigError
from gradspike.models.timm.convert import DEFAULT_FORM, Conversion, convert
from gradspike.models.timm.network import TimmConfig, TimmNetwork
from gradspike.models.timm.residual import Form
from gradspike.models.timm.sites import NotConvertible
from gradspike.models.timm.trace import trace
from gradspike.spiking_norm import LayerContext, SpikingNorm
from helpers.method_checks import method_config
from helpers.part_options import neuron_config, norm_config

T, B, SIZE = 2, 4, 32
NARROW = {"channels": [8, 8, 8, 8], "layers": [2, 1, 1, 1]}


def context_for(method: str = "mpd_agl") -> LayerContext:
    return LayerContext(T, neuron_config(), method_config(method), norm_config())


def build(name: str, method: str = "mpd_agl", **model: Any) -> TimmNetwork:
    dataset = load_config(["dataset=cifar10", f"dataset.image_size={SIZE}", "recipe=none"]).dataset
    torch.manual_seed(0)
    return TimmNetwork(
        TimmConfig.model_validate({"name": name, "residual": "auto", **model}), dataset, context_for(method)
    )


def conversion(model: TimmNetwork) -> Conversion:
    assert model.report.conversion is not None
    return model.report.conversion


def images() -> Tensor:
    return torch.randn(B, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


def converted(network: nn.Module, form: Form | Literal["auto"]) -> tuple[nn.Module, Conversion]:
    graph = trace(network, 4, 8)
    return graph, convert(graph, context_for(), False, False, form)


def bare(layer: nn.Module) -> nn.Module:
    alone = copy.deepcopy(layer)
    assert isinstance(alone, SpikingNorm)
    alone.norm = None
    return alone


def sew(ann: nn.Module, snn: nn.Module, x: Tensor) -> Tensor:
    shortcut = x if ann.downsample is None else snn.get_submodule("downsample.2")(ann.downsample[:2](x))
    spikes: Tensor = snn.bn2(ann.conv2(snn.bn1(ann.conv1(x))))
    return spikes + shortcut


def membrane(ann: nn.Module, snn: nn.Module, x: Tensor, spikes: Tensor) -> Tensor:
    shortcut = x if ann.downsample is None else snn.get_submodule("downsample.2")(ann.downsample[:2](x))
    current: Tensor = snn.bn2(ann.conv2(snn.bn1(ann.conv1(spikes))))
    return current + shortcut


@pytest.mark.parametrize("form", ["sew", "membrane"])
def test_forms_against_blocks_written_by_hand(form: Form) -> None:
    """Five blocks, the second with an identity as shortcut."""
    model = build("resnet10t", options=NARROW, residual=form)
    torch.manual_seed(0)
    source = timm.create_model("resnet10t", num_classes=10, **NARROW)
    net = model.network
    stem = net.conv1
    x = source.conv1[0](torch.cat([images()] * T))
    x = stem.get_submodule("4")(source.conv1[3](stem.get_submodule("1")(x)))
    x = spikes = source.maxpool(net.bn1(source.conv1[6](x)))
    for name in ("layer1.0", "layer1.1", "layer2.0", "layer3.0", "layer4.0"):
        ann, snn = source.get_submodule(name), net.get_submodule(name)
        if form == "sew":
            x = spikes = sew(ann, snn, x)
        else:
            x = membrane(ann, snn, x, spikes)
            spikes = snn.act2(x)
    expected = source.fc(source.global_pool(spikes)).view(T, B, 10)
    assert expected.std() > 0.01
    torch.testing.assert_close(model(images()), expected, rtol=1e-4, atol=1e-4)
    done = conversion(model)
    assert (done.form, done.blocks) == (form, 5)
    assert (len(done.neurons), len(done.norms)) == ((0, 0) if form == "sew" else (5, 9))


@pytest.mark.parametrize("method", ["fixed_sg", "ds_atgo", "mpd_agl"])
def test_gradients_do_not_multiply_along_a_stream_of_currents(method: str) -> None:
    """Sixteen blocks. The spread of their currents stays near V_th, and the gradient at the first is not far from that
    at the last; with 1 / sqrt(2) for all branches it is 44 times as large with fixed_sg, 52 times with ds_atgo.
    """
    model = build("resnet10t", method, options={"channels": [8] * 4, "layers": [4] * 4})
    done = conversion(model)
    assert (done.blocks, done.form, done.opened, len(done.scaled)) == (16, "membrane", (), 20)
    spreads, gradients = [], []

    def watch(_layer: nn.Module, given: tuple[Tensor, ...], _spikes: Tensor) -> None:
        spreads.append(float(given[0].detach().std()) / context_for(method).method.v_threshold)
        given[0].register_hook(lambda gradient: gradients.append(float(gradient.norm())))

    for name in done.neurons:  # one behind each block
        model.network.get_submodule(name).register_forward_hook(watch)
    nn.functional.cross_entropy(model(images()).mean(0), torch.arange(B)).backward()
    assert len(spreads) == len(gradients) == 16
    assert all(0.8 < spread < 1.4 for spread in spreads)
    assert 0.2 < gradients[-1] / gradients[0] < 10  # the backward pass sees the last block first


class Tail(nn.Module):
    """A block with squeeze-excite, drop path and pooling in its shortcut, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.gate = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1, stride=2), nn.Conv2d(4, 4, 1)
        self.bn0, self.bn1, self.bn2 = (nn.BatchNorm2d(4) for _ in range(3))
        self.drop, self.pool, self.act, self.fc = DropPath(0.5), nn.AvgPool2d(2), nn.ReLU(), nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.bn0(x))
        y = self.bn2(self.conv2(self.act(self.bn1(self.conv1(x)))))
        y = y * self.gate(y).sigmoid()
        z: Tensor = self.act(self.drop(y) + self.pool(x))
        return self.fc(z.mean((2, 3)))


class PoolsFirst(nn.Module):
    """Two blocks; the branch and the shortcut of the second read the same pooled features."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3, self.conv4 = (nn.Conv2d(4, 4, 1) for _ in range(4))
        self.bn0, self.bn1, self.bn2 = (nn.BatchNorm2d(4) for _ in range(3))
        self.pool, self.act, self.fc = nn.AvgPool2d(2), nn.ReLU(), nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.bn0(x))
        x = self.act(self.bn1(self.conv1(self.act(self.conv2(x)))) + x)
        x = self.pool(x)
        x = self.act(self.bn2(self.conv4(self.act(self.conv3(x)))) + x)
        return self.fc(x.mean((2, 3)))


def test_a_neuron_stands_behind_gates_and_before_drop_path() -> None:
    torch.manual_seed(0)
    network, done = converted(Tail(), "sew")
    assert (done.pairs, done.neurons, done.norms) == (("bn0", "bn1"), ("neuron",), ("bn2",))
    seen: dict[str, Tensor] = {}
    for name in ("neuron", "drop"):
        network.get_submodule(name).register_forward_hook(
            lambda _m, given, _o, name=name: seen.update({name: given[0]})
        )
    network(torch.randn(B, 4, 8, 8), True)
    assert set(seen["drop"].unique().tolist()) <= {0.0, 1.0}
    assert len(seen["neuron"].unique()) > 2


def test_membrane_is_refused_where_the_shortcut_cannot_be_separated() -> None:
    assert converted(PoolsFirst(), "sew")[1].blocks == 2
    with pytest.raises(NotConvertible, match=r"residual=membrane: its branch and its shortcut share pool"):
        converted(PoolsFirst(), "membrane")


class Parallel(nn.Module):
    """An activation after the sum of branches that have none, as in RepVGG."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.fc = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1), nn.Linear(4, 10)
        self.bn0, self.bn1, self.bn2, self.act = nn.BatchNorm2d(4), nn.BatchNorm2d(4), nn.BatchNorm2d(4), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.bn0(x))
        x = self.act(self.bn1(self.conv1(x)) + self.bn2(self.conv2(x)))
        return self.fc(x.mean((2, 3)))


@pytest.mark.parametrize("form", ["sew", "membrane"])
def test_a_form_is_refused_where_a_sum_is_no_residual_blocks(form: Form) -> None:
    with pytest.raises(NotConvertible, match=rf"residual={form} needs .* the sums in Parallel belong to no residual"):
        converted(Parallel(), form)
    assert converted(Parallel(), "auto")[1].form == "as_is"


@pytest.mark.parametrize(("form", "name"), [("sew", "vgg11_bn"), ("membrane", "resnetv2_18")])
def test_a_form_is_refused_without_an_activation_after_a_sum(form: str, name: str) -> None:
    options: dict[str, Any] = {"mlp_ratio": 0.01} if name == "vgg11_bn" else {"channels": [8, 8, 8, 8]}
    with pytest.raises(ConfigError, match=rf"residual={form} needs .* no block is of this kind; choose .*=as_is"):
        build(name, residual=form, options=options)
    model = build(name, options=options)
    assert conversion(model).form == "as_is"
    assert "residual blocks: none has an activation after its sum" in model.report.lines()


def test_loaded_weights_keep_timms_form_unless_told_otherwise(tmp_path: Path) -> None:
    """They were trained with rectified sums."""
    torch.save(timm.create_model("resnet10t", num_classes=10, **NARROW).state_dict(), tmp_path / "w.pt")
    loaded = {"options": NARROW, "pretrained": str(tmp_path / "w.pt")}
    assert conversion(build("resnet10t", **loaded)).form == "as_is"
    assert conversion(build("resnet10t", residual="sew", **loaded)).form == "sew"
    assert conversion(build("resnet10t", options=NARROW)).form == DEFAULT_FORM


def test_a_run_recorded_without_the_option_keeps_its_network() -> None:
    """Names and shapes of its weights fit every form."""
    assert TimmConfig.model_validate({"name": "resnet18"}).residual == "as_is"
    assert load_config(["model=timm", "recipe=none"]).model.model_dump()["residual"] == "auto"


def test_shortcuts_that_read_some_positions_alone_are_reported_with_the_option_that_helps() -> None:
    """With its branches off, such a network sees a corner of the image, and averaging shortcuts all of it."""

    def seen(model: TimmNetwork) -> float:
        """Share of the positions of the first layer's output on which the last sum depends by the shortcuts alone."""
        network = model.network
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                if name.endswith("bn2.weight"):
                    parameter.zero_()
        kept: list[Tensor] = []
        first, last = network.get_submodule("maxpool"), network.get_submodule("layer4.0.act2")

        def keep(_: nn.Module, __: Any, output: Tensor) -> None:
            output.retain_grad()
            kept.append(output)

        first.register_forward_hook(keep)
        last.register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0]))
        model.eval()(images())
        kept[1].sum().backward()
        gradient = kept[0].grad
        assert gradient is not None
        return (gradient != 0).any(1).float().mean().item()

    options = {"channels": [8, 8, 8, 8], "layers": [1, 1, 1, 1]}
    plain = build("resnet18", residual="membrane", options=options)
    averaging = build("resnet18", residual="membrane", options={**options, "avg_down": True})
    names = [f"layer{stage}.0.downsample.0" for stage in (2, 3, 4)]
    assert conversion(plain).skipping == tuple(names)
    assert any(
        line.startswith(f"shortcuts read some positions alone: {', '.join(names)}") for line in plain.report.lines()
    )
    assert not conversion(averaging).skipping
    assert not any("positions alone" in line for line in averaging.report.lines())
    unchanged = build("resnet18", residual="as_is", options=options)
    assert not any("positions alone" in line for line in unchanged.report.lines())
    assert seen(plain) == 1 / 64
    assert seen(averaging) == 1
