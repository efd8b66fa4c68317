"""timm networks as spiking networks: conversion, time, the ANN twin, and the same network written by hand."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradspike.config.compose import load_config
from gradspike.errors import ConfigError
from gradspike.methods.registry import METHODS
from gradspike.spiking_norm import SpikingNorm
from gradspike.training.run import train
from helpers.timm_networks import FAMILIES, SIZE, B, T, build, context_for, images, original

EXPECTED = {  # pairs, neurons, gates, norms, other norms
    "resnet18d": (11, 8, 0, 12, 0),
    "vgg11_bn": (8, 2, 0, 0, 0),
    "test_efficientnet": (9, 0, 2, 4, 0),
    "densenet121": (16, 0, 0, 0, 0),
    "test_byobnet": (6, 4, 4, 8, 0),
    "test_convnext": (0, 9, 0, 0, 14),
    "resnest14d": (11, 4, 4, 12, 0),
}


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
