"""timm networks as spiking networks: conversion, time, ANN twin, weights from a file, refusals."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.layers import BatchNormAct2d, GroupNormAct
from torch import Tensor, nn
from torch.nn import functional as F

from gradspike.config.compose import load_config
from gradspike.data.options.base import DatasetConfig
from gradspike.errors import ConfigError, UserError
from gradspike.methods.registry import METHODS
from gradspike.models.parameters import undecayed_parameters
from gradspike.models.spiking_layers import name_layers
from gradspike.models.timm.convert import Conversion, convert
from gradspike.models.timm.network import TimmConfig, TimmNetwork
from gradspike.models.timm.trace import NotTraceable, trace
from gradspike.norms.base import ChannelNorm
from gradspike.spiking_norm import LayerContext, SpikingNorm
from gradspike.training.evaluate import as_evaluated
from gradspike.training.run import train
from helpers.method_checks import method_config
from helpers.part_options import neuron_config, norm_config

T, B, SIZE = 2, 4, 32
FAMILIES: dict[str, dict[str, Any]] = {
    "resnet18d": {"channels": [8, 8, 16, 16]},
    "vgg11_bn": {"mlp_ratio": 0.01},
    "test_efficientnet": {"act_layer": "relu6"},
    "densenet121": {"growth_rate": 8, "block_config": [2, 2, 2]},
    "test_byobnet": {},
    "test_convnext": {},
    "resnest14d": {"channels": [8, 8, 16, 16]},
}
EXPECTED = {  # pairs, neurons, gates, norms, other norms
    "resnet18d": (11, 8, 0, 12, 0),
    "vgg11_bn": (8, 2, 0, 0, 0),
    "test_efficientnet": (9, 0, 2, 4, 0),
    "densenet121": (16, 0, 0, 0, 0),
    "test_byobnet": (6, 4, 4, 8, 0),
    "test_convnext": (0, 9, 0, 0, 14),
    "resnest14d": (11, 4, 4, 12, 0),
}


@cache
def data(name: str) -> DatasetConfig:
    return load_config([f"dataset={name}", f"dataset.image_size={SIZE}", "recipe=none"]).dataset


def context_for(method: str = "mpd_agl", **norm: Any) -> LayerContext:
    return LayerContext(T, neuron_config(), method_config(method), norm_config(**norm))


def build(
    name: str, context: LayerContext | None = None, *, seed: int = 0, dataset: str = "cifar10", **model: Any
) -> TimmNetwork:
    config = TimmConfig.model_validate({"name": name, "options": FAMILIES.get(name, {}), "residual": "auto", **model})
    context = replace(context or context_for(), activation=config.activation)
    torch.manual_seed(seed)
    network = TimmNetwork(config, data(dataset), context)
    name_layers(network)
    return network


def original(name: str, seed: int = 0, channels: int = 3) -> nn.Module:
    torch.manual_seed(seed)
    return timm.create_model(name, num_classes=10, in_chans=channels, **FAMILIES.get(name, {}))


def images(batch: int = B, channels: int = 3, seed: int = 0) -> Tensor:
    return torch.randn(batch, channels, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def converted(network: nn.Module, gates: bool = False) -> tuple[nn.Module, Conversion]:
    """Convert a small network for 3-channel images of 8 pixels."""
    graph = trace(network, 3, 8)
    return graph, convert(graph, context_for(), gates, trained=False, residual="auto")


def loss_of_steps(model: nn.Module, steps: int) -> list[float]:
    labels, optimizer = torch.arange(B), torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images()).mean(0), labels)
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize("name", FAMILIES)
def test_families_convert_and_learn(name: str) -> None:
    model = build(name)
    done = model.report.conversion
    assert done is not None
    counts = tuple(len(names) for names in (done.pairs, done.neurons, done.gates, done.norms, done.other_norms))
    assert counts == EXPECTED[name]
    layers = {layer.layer_name: layer for layer in model.modules() if isinstance(layer, SpikingNorm)}
    assert {f"network.{layer}" for layer in (*done.pairs, *done.neurons)} == set(layers)
    assert [layer.norm is not None for layer in layers.values()].count(True) == len(done.pairs)
    assert model(images()).shape == (T, B, 10)
    losses = loss_of_steps(model, 6)
    assert min(losses[1:]) < 0.85 * losses[0]


@pytest.mark.parametrize("method", METHODS.names())
def test_every_method_learns(method: str) -> None:
    losses = loss_of_steps(build("test_byobnet", context_for(method)), 5)
    assert min(losses[1:]) < 0.85 * losses[0]


def test_mobilenetv2() -> None:
    """Linear bottlenecks: the last norm of a block feeds a sum and stays unchanged."""
    model, plain = build("mobilenetv2_035"), original("mobilenetv2_035")
    done = model.report.conversion
    assert done is not None
    assert (len(done.pairs), len(done.neurons), len(done.norms), done.gates) == (35, 0, 17, ())
    assert all(name.endswith(("bn2", "bn3")) for name in done.norms)
    model(images()).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert torch.equal(build("mobilenetv2_035", activation="relu")(images())[0], plain(images()))


@pytest.mark.parametrize("name", FAMILIES)
def test_the_twin_is_timms_network_bit_for_bit(name: str) -> None:
    twin, plain = build(name, activation="relu"), original(name)
    assert twin.report.conversion is None
    still, frames = images(), torch.stack([images(seed=seed) for seed in range(T)])
    for training in (True, False):
        twin.train(training), plain.train(training)
        for inputs in (still, frames):
            torch.manual_seed(1)  # dropout
            expected = plain(inputs if inputs is still else inputs.flatten(0, 1)).view(-1, B, 10).expand(T, B, 10)
            torch.manual_seed(1)
            logits = twin(inputs)
            assert torch.equal(logits, expected)
            assert torch.equal(logits.mean(0), expected.mean(0))
    for key, value in plain.state_dict().items():
        assert torch.equal(twin.state_dict()[f"network.{key}"], value), key


@pytest.mark.parametrize("name", FAMILIES)
def test_a_still_image_is_the_same_as_its_repetition_and_its_stem_runs_once(name: str) -> None:
    model = build(name)
    assert model.report.conversion is not None
    assert model.report.conversion.still
    frames = images().expand(T, B, 3, SIZE, SIZE)
    sizes: list[int] = []
    first = next(m for m in model.modules() if isinstance(m, nn.Conv2d))
    hook = first.register_forward_hook(lambda _m, inputs, _out: sizes.append(len(inputs[0])))
    with torch.no_grad():
        assert torch.equal(model.eval()(images()), model(frames))
        assert sizes == [B, T * B]
        hook.remove()
        for dropout in (m for m in model.modules() if isinstance(m, nn.Dropout)):
            dropout.p = 0.0
        repeated = copy.deepcopy(model).train()
        torch.testing.assert_close(model.train()(images()), repeated(frames), rtol=1e-5, atol=1e-5)
    for key, value in repeated.state_dict().items():
        torch.testing.assert_close(model.state_dict()[key], value, rtol=1e-5, atol=1e-5, msg=key)


@pytest.mark.parametrize("norm", ["tdbn", "tdbn_gain"])
def test_resnet_against_one_written_by_hand(norm: str, tmp_path: Path) -> None:
    """Like two basic blocks of timm written by hand: a pair, then a sum of currents."""
    torch.manual_seed(0)
    source = timm.create_model("resnet10t", num_classes=10, channels=[8, 8, 8, 8])
    with torch.no_grad():
        for module in source.modules():
            if isinstance(module, nn.BatchNorm2d):
                for value in (module.weight, module.bias, module.running_mean, module.running_var):
                    value.uniform_(0.5, 1.5)
    torch.save(source.state_dict(), tmp_path / "source.pt")
    context = context_for("lsg", name=norm, alpha=1.5)
    options = {"channels": [8, 8, 8, 8]}
    model = build("resnet10t", context, options=options, pretrained=str(tmp_path / "source.pt")).eval()
    net = model.network

    def pair(layer: SpikingNorm, bn: nn.BatchNorm2d, y: Tensor) -> Tensor:
        current = 1.5 * layer.v_threshold * bn(y)
        return bare(layer)(current)

    def bare(layer: SpikingNorm) -> Callable[[Tensor], Tensor]:
        alone = copy.deepcopy(layer)
        alone.norm = None
        return alone

    def block(x: Tensor, name: str) -> Tensor:
        ann, snn = source.get_submodule(name), net.get_submodule(name)
        shortcut = ann.downsample(x) if ann.downsample is not None else x
        out = ann.bn2(ann.conv2(pair(snn.bn1, ann.bn1, ann.conv1(x))))
        return snn.act2(out + shortcut)

    source.eval()
    x = torch.cat([images()] * T)
    x = pair(net.conv1.get_submodule("1"), source.conv1[1], source.conv1[0](x))
    x = pair(net.conv1.get_submodule("4"), source.conv1[4], source.conv1[3](x))
    x = source.maxpool(pair(net.bn1, source.bn1, source.conv1[6](x)))
    for stage in range(1, 5):
        x = block(x, f"layer{stage}.0")
    expected = source.fc(source.global_pool(x)).view(T, B, 10)
    torch.testing.assert_close(model(images()), expected, rtol=1e-4, atol=1e-4)


class Shared(nn.Module):
    """One ReLU called three times: after a norm, after a sum, and in place with the input read again."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.fc = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.Linear(4, 10)
        self.bn1, self.bn2 = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(x)) + x)
        z = self.conv2(y)
        self.relu(z)
        return self.fc((z + y).mean((2, 3)))


def test_each_call_of_a_shared_activation_has_a_layer_of_its_own() -> None:
    torch.manual_seed(0)
    network, done = converted(Shared())
    assert (done.pairs, done.neurons, done.norms) == (("bn1",), ("relu_1", "relu_2"), ("bn2",))
    layers = [layer for layer in network.modules() if isinstance(layer, SpikingNorm)]
    assert len({id(layer.method) for layer in layers}) == len({id(layer.neuron) for layer in layers}) == 3
    seen: list[Tensor] = []
    network.fc.register_forward_hook(lambda _m, inputs, _out: seen.append(inputs[0]))
    network(torch.randn(T * B, 3, 8, 8), False)
    assert torch.equal(seen[0] * 36, (seen[0] * 36).round())  # sums of spikes, because the third call was in place


class Functional(nn.Module):
    """Functional activations, a norm that is read twice, and a hand-written gate."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.fc = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.Linear(4, 10)
        self.squeeze, self.excite = nn.Linear(4, 2), nn.Linear(2, 4)
        self.bn1, self.bn2 = nn.BatchNorm2d(4), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(x))
        x = F.leaky_relu(y, 0.1) + y
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean((2, 3))))))
        x = F.dropout(x * gate[:, :, None, None], 0.5, training=self.training)
        return self.fc(x.flatten(2).mean(2))


def test_functional_activations_norms_read_twice_gates_and_dropout() -> None:
    torch.manual_seed(0)
    network, done = converted(Functional())
    assert (done.pairs, done.neurons, done.norms, done.gates) == (("bn1",), ("leaky_relu",), ("bn2",), ("relu_1",))
    x = torch.randn(B, 3, 8, 8)
    network.eval()
    assert torch.equal(network(x, True), network(x, True))
    network.train()
    assert not torch.equal(network(x, True), network(x, True))
    _, spiking = converted(Functional(), gates=True)
    assert (spiking.neurons, spiking.gates) == (("leaky_relu", "relu_1"), ())


class PreActivation(nn.Module):
    """A norm whose activation goes to branch and shortcut, a norm-act of another kind, and outputs of the still part
    that do not go to a spiking layer: a batch norm, a split, a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.Linear(4, 10)
        self.pre, self.plain, self.group = BatchNormAct2d(4), nn.BatchNorm2d(4), GroupNormAct(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        left, right = x.chunk(2, 1)
        pre = self.pre(x)
        x = self.conv(pre) + pre + self.plain(x) + torch.cat([right, left], 1) + x
        return self.fc(self.group(x).mean((2, 3)))


def test_what_leaves_the_still_part_elsewhere_is_repeated() -> None:
    torch.manual_seed(0)
    still, done = converted(PreActivation())
    assert (done.pairs, done.neurons, done.norms) == (("pre",), ("group.neuron",), ("plain",))
    assert (done.other_norms, done.still) == (("group",), ("pre",))
    repeated = copy.deepcopy(still)
    x = torch.randn(B, 3, 8, 8)
    for training in (True, False):
        a, b = still.train(training)(x, True), repeated.train(training)(torch.cat([x] * T), False)
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    for key, value in repeated.state_dict().items():
        torch.testing.assert_close(still.state_dict()[key], value, rtol=1e-5, atol=1e-6, msg=key)


class ReadsBatchSize(nn.Module):
    """Its batch size comes from the image and is used after the first spiking layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.Linear(4 * 36, 10)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        batch = x.shape[0]
        return self.fc(self.conv(self.act(self.stem(x))).reshape(batch, -1))


def test_a_still_image_is_repeated_at_the_input_where_its_batch_size_is_used_later() -> None:
    torch.manual_seed(0)
    network, done = converted(ReadsBatchSize())
    assert done.still == ()
    x = torch.randn(B, 3, 8, 8)
    assert torch.equal(network(x, True), network(torch.cat([x] * T), False))


def test_channels_last_features_have_their_channels_found() -> None:
    """ConvNeXt's activations see [B, H, W, C]; a width per channel is one per C."""
    model = build("test_convnext", replace(context_for(), method=method_config("psg", width_per="channel")))
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, SpikingNorm)}
    shapes: dict[str, tuple[int, ...]] = {}
    for name, layer in layers.items():
        layer.register_forward_hook(lambda _m, _in, out, name=name: shapes.update({name: tuple(out.shape)}))
    model(images()).sum().backward()
    assert all(shapes[name][1] == layer.channels == len(layer.method.width_raw) for name, layer in layers.items())
    blocks = original("test_convnext").modules()
    hidden = {block.fc1.out_features for block in blocks if hasattr(block, "fc1")}
    assert {layer.channels for name, layer in layers.items() if "mlp" in name} == hidden


def test_undecayed_parameters_hold_all_norms() -> None:
    model = build("test_convnext")
    assert {"network.stem.1.weight", "network.stages.0.blocks.0.norm.bias"} <= undecayed_parameters(model)
    assert "network.stem.0.weight" not in undecayed_parameters(model)
    assert "network.layer1.0.bn2.weight" in undecayed_parameters(build("resnet18d"))
    assert "network.layer1.0.bn1.weight" in undecayed_parameters(build("resnet18d", activation="relu"))


@pytest.mark.parametrize("name", ["resnet18d", "test_efficientnet", "test_convnext"])
def test_copies_formats_and_precisions(name: str) -> None:
    model, other = build(name).eval(), build(name, seed=1).eval()
    expected = model(images())
    assert list(other.state_dict()) == list(model.state_dict())
    other.load_state_dict(model.state_dict())
    for same in (other, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(same(images()), expected)
    wide = copy.deepcopy(model).to(memory_format=torch.channels_last)
    logits = wide(images().contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model.train()(images())
    logits.float().sum().backward()
    assert logits.dtype == torch.bfloat16
    assert logits.isfinite().all()


def test_frames_of_events_with_two_channels() -> None:
    model = build("resnet18d", dataset="cifar10dvs")
    frames = torch.randn(T, B, 2, SIZE, SIZE)
    assert model(frames).shape == (T, B, 10)


@pytest.mark.parametrize("suffix", ["pth", "pt", "safetensors"])
def test_pretrained_weights_go_to_their_places(suffix: str, tmp_path: Path) -> None:
    source = original("resnet18d", seed=5)
    with torch.no_grad():
        for module in source.modules():
            if isinstance(module, nn.BatchNorm2d):
                for value in (module.weight, module.bias, module.running_mean, module.running_var):
                    value.uniform_(0.5, 1.5)
    path = tmp_path / f"weights.{suffix}"
    if suffix == "safetensors":
        save_file(source.state_dict(), path)
    else:
        torch.save({"state_dict": source.state_dict()} if suffix == "pth" else source.state_dict(), path)
    twin = build("resnet18d", pretrained=str(path), activation="relu").eval()
    assert torch.equal(twin(images())[0], source.eval()(images()))

    model = build("resnet18d", context_for(alpha=1.5), pretrained=str(path)).eval()
    assert torch.equal(model.network.conv1.get_submodule("0").weight, source.conv1[0].weight)
    layer, y = model.network.layer1.get_submodule("0").bn1, torch.randn(2, 8, 4, 4)
    assert isinstance(layer.norm, ChannelNorm)
    torch.testing.assert_close(layer.norm(y), 1.5 * layer.v_threshold * source.layer1[0].bn1(y))
    assert str(path) in "\n".join(model.report.lines())


def test_pretrained_for_other_classes_and_channels(tmp_path: Path) -> None:
    torch.manual_seed(5)
    source = timm.create_model("resnet18d", num_classes=7, in_chans=3, channels=[8, 8, 16, 16])
    torch.save(source.state_dict(), tmp_path / "w.pt")
    twin = build("resnet18d", pretrained=str(tmp_path / "w.pt"), activation="relu", dataset="cifar10dvs")
    assert torch.equal(twin.network.fc.weight, original("resnet18d", channels=2).fc.weight)
    torch.testing.assert_close(twin.network.conv1[0].weight, source.conv1[0].weight[:, :2] * 1.5)
    notes = "\n".join(twin.report.lines())
    assert "fc.weight: [7, 16] in the file, stays random with [10, 16]" in notes
    assert "conv1.0.weight: adapted from 3 to 2 input channels" in notes


def test_a_run_is_evaluated_without_the_file_it_began_with() -> None:
    config = load_config(["model=timm", "model.pretrained=gone.pt", "recipe=none"])
    assert isinstance(config.model, TimmConfig)
    assert config.model.pretrained == "gone.pt"
    assert as_evaluated(config, None, "cpu").plain()["model"] == {**config.plain()["model"], "pretrained": None}


def test_pretrained_files_that_do_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    with pytest.raises(ConfigError, match=r"model\.pretrained: unknown file '.*w\.pt'"):
        build("resnet18d", pretrained=str(path))
    path.write_bytes(b"no weights")
    with pytest.raises(UserError, match=r"w\.pt: cannot be read as weights"):
        build("resnet18d", pretrained=str(path))
    torch.save({"epoch": 3}, path)
    with pytest.raises(UserError, match="no dictionary of weights"):
        build("resnet18d", pretrained=str(path))
    torch.save(original("vgg11_bn").state_dict(), path)
    with pytest.raises(ConfigError, match=r"missing: conv1.*not in the network: features\.0.*more"):
        build("resnet18d", pretrained=str(path))
    torch.save(timm.create_model("resnet18d", num_classes=10).state_dict(), path)
    with pytest.raises(ConfigError, match=r"with another shape: .*layer1\.0\.conv1\.weight"):
        build("resnet18d", pretrained=str(path))
    torch.save(nn.Linear(1, 1), path)
    with pytest.raises(UserError, match="contains more than tensors, and reading it could run code; save its state_"):
        build("resnet18d", pretrained=str(path))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("test_vit", r"cannot be made a spiking network: it has attention \(Attention\)"),
        (
            "deit_tiny_patch16_224",
            r"attention \(Attention\), which multiplies .* model=spikformer, sdt and qkformer are",
        ),
        ("swin_tiny_patch4_window7_224", r"it has attention \(WindowAttention\)"),
        ("edgenext_xx_small", r"multiplies features by features, as attention does \(CrossCovarianceAttn\)"),
        ("gmixer_12_224", "is not a convolutional network"),
        ("sequencer2d_s", r"recurrent over its tokens \(LSTM\)"),
        ("inception_v3", "does not run on 3 x 32 x 32 images"),
        ("resnet18x", "unknown network 'resnet18x' in timm .* Did you mean one of resnet18, "),
    ],
)
def test_refusals_say_why(name: str, reason: str) -> None:
    with torch.device("meta"), pytest.raises(ConfigError, match=reason):
        build(name)


class MixesSamples(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.fc = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x).transpose(0, 1).relu()
        return self.fc(self.conv2(x.transpose(0, 1)).mean((2, 3)))


class Branches(Shared):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if x.sum() > float(x[0, 0, 0, 0]) else self.fc(x[:, 0, 0, :4])


def test_forwards_that_cannot_be_followed() -> None:
    with pytest.raises(Exception, match="mixes samples"):
        converted(MixesSamples())
    with pytest.raises(NotTraceable, match="cannot be traced"):
        trace(Branches(), 3, 8)


@pytest.mark.parametrize(
    ("option", "said"),
    [("checkpoint_path=w.pth", "model.pretrained=<file>"), ("pretrained=true", "model.pretrained=<file>")]
    + [(f"{key}=5", "follows from the data set") for key in ("num_classes", "in_chans")],
)
def test_options_that_are_set_elsewhere_are_refused(option: str, said: str) -> None:
    """Otherwise timm would load weights unknown to the conversion, which must keep loaded gains."""
    with pytest.raises(ConfigError, match=rf"model\.options=.*{option.partition('=')[0]} cannot be set here; .*{said}"):
        load_config(["model=timm", f"+model.options.{option}"])


def test_unknown_names_and_options_are_reported_before_data_are_prepared(tmp_path: Path) -> None:
    words = ["model=timm", "dataset=digits", f"data_dir={tmp_path / 'data'}", f"runs_dir={tmp_path / 'runs'}"]
    with pytest.raises(ConfigError, match="Did you mean one of mobilenetv2_100"):
        train(load_config([*words, "model.name=mobilenet_v2_100"]), None, [])
    with pytest.raises(ConfigError, match=r"timm cannot build it .*widht"):
        train(load_config([*words, "+model.options.widht=2"]), None, [])
    assert not list(tmp_path.iterdir())


def test_the_report_counts_what_was_converted() -> None:
    lines = build("test_efficientnet").report.lines()
    assert "spiking: 9 x batch norm + activation, 0 x activation alone" in lines
    assert "unchanged: 4 batch norms, 0 other norms, 2 activations of gates" in lines


def test_what_was_converted_stands_once_in_a_runs_log(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the terminal and in run.log."""
    network = ["model=timm", "model.name=resnet10t", "+model.options.channels=[4,4,4,4]", "dataset=digits"]
    cheap = ["time_steps=1", "dataset.batch_size=500", "trainer.max_epochs=1", "trainer.accelerator=cpu"]
    cheap += ["engine=eager"]
    run, _ = train(load_config([*network, *cheap, f"data_dir={data_dir}", f"runs_dir={tmp_path}"]), None, [])
    said = capsys.readouterr()
    for text in (run.log.read_text(), said.out + said.err):
        assert text.count("model: spiking: 7 x batch norm + activation, 4 x activation alone") == 1
    assert "model: timm" in run.log.read_text()


@pytest.mark.parametrize(("name", "woken"), [("darknet17", True), ("densenet121", False)])
def test_layers_that_timm_starts_silent_are_woken(name: str, woken: bool) -> None:
    """With a gain of 0, or a norm over max-pooled spikes, a new layer does not fire, nor does any later one."""
    model = build(name)
    done = model.report.conversion
    assert done is not None
    assert (bool(done.woken), bool(done.relays)) == (woken, not woken)
    rates: dict[str, float] = {}
    for layer in (*done.woken, *done.relays):
        model.network.get_submodule(layer).register_forward_hook(
            lambda _m, _in, out, layer=layer: rates.update({layer: float(out.mean())})
        )
    with torch.no_grad():
        model(images(batch=8))
    assert all(rate > 0.02 for rate in rates.values()), rates


@pytest.mark.parametrize("norm", ["tdbn", "tdbn_gain"])
@pytest.mark.parametrize("method", ["mpd_agl", "ds_atgo", "psg"])
def test_gradients_pass_blocks_whose_branch_timm_starts_closed(method: str, norm: str, tmp_path: Path) -> None:
    """With timm's 0 as the last gain of a branch, the neuron after the sum sees only spikes; with psg and ds_atgo no
    gradient passes it. Loaded gains stay unchanged.
    """
    context = context_for(method, name=norm, alpha=1.5)
    model = build("resnet18d", context)
    done = model.report.conversion
    assert done is not None
    closed = [name for name, value in original("resnet18d").named_parameters() if "bn" in name and not value.any()]
    assert [f"{name}.weight" for name in done.opened] == [name for name in closed if name.endswith("weight")]
    assert len(done.opened) == 8
    for name in done.opened:
        gain = model.network.get_submodule(name).weight.detach()
        torch.testing.assert_close(gain, torch.full_like(gain, 1.5 * context.method.v_threshold / 2**0.5))
    F.cross_entropy(model(images()).mean(0), torch.arange(B)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.ndim != 4 or (parameter.grad is not None and parameter.grad.any()), name

    torch.save(original("resnet18d").state_dict(), tmp_path / "w.pt")
    loaded = build("resnet18d", context, pretrained=str(tmp_path / "w.pt"))
    assert loaded.report.conversion is not None
    assert loaded.report.conversion.opened == ()
    assert not loaded.network.get_submodule(done.opened[0]).weight.any()
