"""The networks of the papers: parameter counts, layer lists, residual functions, stems, pooling, sizes."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from gradspike.config.compose import load_config
from gradspike.config.schema import ExperimentConfig
from gradspike.errors import ConfigError
from gradspike.models.blocks import conv1x1, scaled
from gradspike.models.parameters import undecayed_parameters
from gradspike.models.residual import BasicBlock, SewBlock
from gradspike.norms.base import ChannelNorm
from gradspike.spiking_norm import SpikingNorm
from gradspike.training.build import build_model

RESNETS = ["resnet19", "sew_resnet18", "sew_resnet34", "sew_resnet50"]


config_for = cache(lambda *overrides: load_config(["recipe=none", "engine=eager", *overrides]))


def build(*overrides: str, **options: Any) -> nn.Module:
    """The network of a configuration, with `options` of the model replaced."""
    config: ExperimentConfig = config_for(*overrides)
    chosen = type(config.model).model_validate({**config.model.model_dump(), **options})
    torch.manual_seed(0)
    return build_model(config.model_copy(update={"model": chosen}))


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def spiking_layers(model: nn.Module) -> list[SpikingNorm]:
    return [layer for layer in model.modules() if isinstance(layer, SpikingNorm)]


def images(size: int, batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(0))


def test_resnet19_parameters_by_hand() -> None:
    model = build("dataset=cifar10", "model=resnet19", "neuron=plif")
    stem = 9 * 3 * 128
    stages = 9 * (6 * 128**2 + 128 * 256 + 5 * 256**2 + 256 * 512 + 3 * 512**2)
    shortcuts = 128 * 256 + 256 * 512
    linear = 512 * 256 + 256 * 10
    norms = 2 * (7 * 128 + 7 * 256 + 5 * 512 + 256)
    assert count(model) == stem + stages + shortcuts + linear + norms + 20 == 12_698_260
    assert len(spiking_layers(model)) == 20


def test_vggsnn_parameters_by_hand() -> None:
    model = build("dataset=cifar10dvs", "model=vggsnn", "neuron=plif")
    convolutions = 9 * (2 * 64 + 64 * 128 + 128 * 256 + 256**2 + 256 * 512 + 3 * 512**2)
    norms = 2 * (64 + 128 + 2 * 256 + 4 * 512)
    assert count(model) == convolutions + norms + 4608 * 10 + 10 + 8 == 9_268_754
    assert len(spiking_layers(model)) == 8


def test_vgg13_parameters_of_torchvisions() -> None:
    """The convolutions, without biases, and norms of torchvision's VGG-13, and one linear layer over 2x2 pixels."""
    model = build("dataset=tiny_imagenet", "model=vgg13", "neuron=plif")
    with torch.device("meta"):
        features = torchvision.models.vgg13_bn().features
    biases = sum(len(layer.bias) for layer in features if isinstance(layer, nn.Conv2d) and layer.bias is not None)
    assert count(model) == count(features) - biases + (2 * 2 * 512 * 200 + 200) + 10 == 9_817_746


@pytest.mark.parametrize(("name", "neurons", "total"), [("18", 20, 11_689_532), ("34", 36, 21_797_708)])
def test_sew_resnet_parameters_of_torchvisions(name: str, neurons: int, total: int) -> None:
    """torchvision's ResNet plus a decay for each neuron, including those of the shortcuts."""
    model = build("dataset=imagenet", f"model=sew_resnet{name}", "neuron=plif")
    with torch.device("meta"):
        other = getattr(torchvision.models, f"resnet{name}")()
    assert count(model) == count(other) + neurons == total
    assert len(spiking_layers(model)) == neurons


@pytest.mark.parametrize("name", ["18", "34", "50"])
def test_the_basic_twin_is_torchvisions_resnet(name: str) -> None:
    """With residual=basic and ReLU, the network equals torchvision's ResNet with the same weights."""
    options = {"residual": "basic", "activation": "relu", "stem": "imagenet"}
    model = build("dataset=imagenet", f"model=sew_resnet{name}", "time_steps=2", **options)
    other = getattr(torchvision.models, f"resnet{name}")()
    model(images(48, batch=8))  # changes the running statistics
    state = {key: value for key, value in model.state_dict().items() if "num_batches" not in key}
    names = [key for key in other.state_dict() if "num_batches" not in key]
    other.load_state_dict(dict(zip(names, state.values(), strict=True)), strict=False)
    model.eval(), other.eval()
    with torch.no_grad():
        expected = other(images(48))
        torch.testing.assert_close(model(images(48)), expected.expand(2, *expected.shape), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["resnet19", "sew_resnet18", "sew_resnet50", "vggsnn", "vgg9", "vgg13"])
def test_layers_are_listed_in_the_order_in_which_they_are_called(name: str) -> None:
    model = build("dataset=cifar10", f"model={name}", width=0.03)
    called: list[str] = []
    for layer in spiking_layers(model):
        layer.register_forward_hook(lambda layer, inputs, output: called.append(layer.layer_name))
    model(images(32))
    assert called == [layer.layer_name for layer in spiking_layers(model)]


def test_initialisation() -> None:
    """Kaiming normal (fan out); the norms of SEW blocks as all others."""
    model = build("dataset=cifar10", "model=resnet19", width=0.5)
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d) and layer.weight.numel() > 5000:
            fan_out = layer.out_channels * layer.kernel_size[0] ** 2
            assert float(layer.weight.detach().std()) == pytest.approx(math.sqrt(2 / fan_out), rel=0.05)
        elif isinstance(layer, ChannelNorm):
            assert layer.weight.detach().eq(1).all()
            assert layer.bias.detach().eq(0).all()


@pytest.mark.parametrize(("channels", "width", "expected"), [(128, 0.25, 32), (64, 1e-3, 1), (64, 0.2, 13), (9, 2, 18)])
def test_width(channels: int, width: float, expected: int) -> None:
    assert scaled(channels, width) == expected


@pytest.mark.parametrize("channels", [2, 6, 12, 16])
def test_gradients_of_strided_shortcuts_of_few_channels(channels: int) -> None:
    """Compared with a sum over channels; oneDNN's weight gradient is wrong for few channels."""
    torch.manual_seed(0)
    conv = conv1x1(channels, 13, stride=2).to(memory_format=torch.channels_last)
    images = torch.randn(32, channels, 9, 9).contiguous(memory_format=torch.channels_last).requires_grad_()
    upward = torch.randn(32, 13, 5, 5)
    actual = torch.autograd.grad(conv(images), (images, conv.weight), upward)
    output = torch.einsum("nihw,oi->nohw", images[:, :, ::2, ::2], conv.weight[:, :, 0, 0])
    expected = torch.autograd.grad(output, (images, conv.weight), upward)
    torch.testing.assert_close(conv(images), output)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "smallest"), [("vgg9", 8), ("vggsnn", 16), ("vgg11", 32), ("vgg13", 32)])
def test_vgg_from_the_smallest_size_on(name: str, smallest: int) -> None:
    for size in (smallest, smallest + 5, 2 * smallest):
        model = build("dataset=cifar10", f"model={name}", f"dataset.image_size={size}", width=0.03)
        assert model(images(size)).shape == (2, 2, 10)
    with pytest.raises(ConfigError, match=f"images of {smallest} pixels or more"):
        build("dataset=cifar10", f"model={name}", f"dataset.image_size={smallest - 1}")


@pytest.mark.parametrize("size", [1, 2, 7, 30])
@pytest.mark.parametrize("stem", ["imagenet", "small"])
def test_resnets_take_any_size(stem: str, size: int) -> None:
    model = build("dataset=cifar10", "model=sew_resnet18", stem=stem, width=0.05)
    assert model(images(size)).shape == (2, 2, 10)


def test_stem_follows_the_image_size() -> None:
    for size, kernel, after in ((64, (3, 3), 64), (96, (7, 7), 24)):
        model = build("dataset=image_folder", "dataset.classes=5", f"dataset.image_size={size}", "model=sew_resnet18")
        stem = model.get_submodule("stem")
        assert isinstance(stem, nn.Conv2d)
        assert stem.kernel_size == kernel
        sizes: list[int] = []
        model.get_submodule("blocks.0").register_forward_hook(lambda _, x, y, sizes=sizes: sizes.append(x[0].shape[-1]))
        with torch.no_grad():
            model(images(size, batch=1))
        assert sizes == [after]


@pytest.mark.parametrize("pool", ["avg", "max"])
@pytest.mark.parametrize("name", ["resnet19", "sew_resnet18", "vggsnn"])
def test_pooling(name: str, pool: str) -> None:
    stem = {"stem": "imagenet"} if name == "sew_resnet18" else {}
    model = build("dataset=cifar10", f"model={name}", pool=pool, width=0.03, **stem)
    logits = model(images(32))
    logits.square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())
    kinds = {"avg": (nn.AvgPool2d, nn.AdaptiveAvgPool2d), "max": (nn.MaxPool2d, nn.AdaptiveMaxPool2d)}
    assert any(isinstance(layer, kinds[pool]) for layer in model.modules())
    last = nn.AdaptiveAvgPool2d if name == "sew_resnet18" else ()
    other = kinds["max" if pool == "avg" else "avg"]
    assert not any(isinstance(layer, other) and not isinstance(layer, last) for layer in model.modules())


@pytest.mark.parametrize("residual", ["add", "and", "iand"])
def test_sew_functions(residual: str) -> None:
    """The output of each block from its spikes and its shortcut, Table 1 of Fang et al."""
    model = build("dataset=cifar10", "model=resnet19", width=0.06, residual=residual)
    blocks = [block for block in model.modules() if isinstance(block, SewBlock)]
    assert len(blocks) == 8
    seen: dict[nn.Module, Tensor] = {}
    for block in blocks:
        for part in (block.neuron2, block.shortcut, block):
            part.register_forward_hook(lambda part, inputs, output: seen.__setitem__(part, output))
    model(images(16))
    for block in blocks:
        s, x = seen[block.neuron2], seen[block.shortcut]
        expected = {"add": s + x, "and": s * x, "iand": (1 - s) * x}[residual]
        assert torch.equal(seen[block], expected)
        assert set(seen[block].unique().tolist()) <= ({0.0, 1.0} if residual != "add" else {0.0, 1.0, 2.0, 3.0, 4.0})
    assert max(float(seen[block].detach().max()) for block in blocks) == (4.0 if residual == "add" else 1.0)


@pytest.mark.parametrize("norm", ["tdbn", "tdbn_gain"])
def test_basic_blocks_add_currents(norm: str) -> None:
    """Two normalised currents of variance V_th^2 / 2 each, summed before a neuron whose gamma_mean is 1."""
    model = build("dataset=cifar10", "model=resnet19", f"norm.name={norm}", width=0.2, residual="basic")
    blocks = [block for block in model.modules() if isinstance(block, BasicBlock)]
    assert [len(block.shortcut) for block in blocks] == [0, 0, 0, 2, 0, 0, 2, 0]
    seen: dict[nn.Module, Tensor] = {}
    for block in blocks:
        block.norm2.register_forward_hook(lambda part, inputs, output: seen.__setitem__(part, output))
        block.shortcut.register_forward_hook(lambda part, inputs, output: seen.__setitem__(part, output))
        block.neuron2.register_forward_hook(lambda part, inputs, output: seen.__setitem__(part, inputs[0]))
    model(images(16, batch=8))
    for block in blocks:
        assert isinstance(block.neuron2, SpikingNorm)
        current = seen[block.neuron2]
        torch.testing.assert_close(current, seen[block.norm2] + seen[block.shortcut])
        if len(block.shortcut):
            v_threshold = block.neuron2.v_threshold
            for part in (block.norm2, block.shortcut):
                assert float(seen[part].detach().var()) == pytest.approx(v_threshold**2 / 2, rel=0.02)
        assert block.neuron2.facts(current, gradients=True).gamma_mean is None
        assert block.neuron2.inspect(current).widths[0] == 2 * block.neuron2.v_threshold  # mpd_agl, t = 0


@pytest.mark.parametrize("norm", ["bn", "tebn", "tab", "mpbn"])
@pytest.mark.parametrize(
    "network", [["model=resnet19"], ["model=timm", "model.name=test_resnet"]], ids=["basic", "timm"]
)
def test_other_norms_where_norm_and_neuron_stand_apart(network: list[str], norm: str) -> None:
    """Every parameter learns, a still image gives the numbers of its frames, and a state restores the network."""
    options = {"width": 0.05, "residual": "basic"} if "resnet19" in network[0] else {}
    model, fresh = (build("dataset=cifar10", *network, f"norm={norm}", "time_steps=2", **options) for _ in range(2))
    model.double(), fresh.double()
    size = 16 if options else 32
    still = images(size).double()
    frames = fresh(still.expand(2, *still.shape))
    logits = model(still)
    torch.testing.assert_close(logits, frames)
    logits.square().sum().backward()
    assert all(one.grad is not None and one.grad.isfinite().all() for one in model.parameters())
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh.eval()(still), model.eval()(still))


def test_weight_decay_is_kept_from_norms_of_basic_blocks() -> None:
    model = build("dataset=cifar10", "model=sew_resnet18", width=0.05, residual="basic")
    vectors = {name for name, parameter in model.named_parameters() if parameter.ndim < 2 and name != "head.bias"}
    assert undecayed_parameters(model) == vectors
    assert {"blocks.2.norm2.weight", "blocks.2.shortcut.1.bias"} <= vectors


@pytest.mark.parametrize("activation", ["spike", "relu"])
@pytest.mark.parametrize("residual", ["add", "and", "iand", "basic"])
@pytest.mark.parametrize("name", RESNETS)
def test_every_residual_function_lets_signal_and_gradient_through(name: str, residual: str, activation: str) -> None:
    model = build("dataset=cifar10", f"model={name}", width=0.12, residual=residual, activation=activation)
    arrived: list[Tensor] = []
    model.get_submodule("blocks").register_forward_hook(lambda _, inputs, output: arrived.append(output))
    model(images(16, batch=8)).square().mean().backward()
    assert float((arrived[0] != 0).float().mean()) > 0.01
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())
    first = next(model.parameters()).grad
    assert first is not None
    assert first.abs().sum() > 0
