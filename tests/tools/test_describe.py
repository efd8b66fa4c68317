"""Shapes and cost: counts checked by hand, totals against the network, the command as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from gradspike.config.compose import load_config
from gradspike.config.schema import ExperimentConfig
from gradspike.cost.counting import OUTSIDE
from gradspike.tools.describe.measure import Description, Layer, measure
from gradspike.training.build import build_model
from helpers.command import IMPORT_TIMES, command, here, imported

FLOAT = 4  # bytes


def digits(*more: str) -> ExperimentConfig:
    return load_config(["dataset=digits", "model.width=4", "model.depth=2", "time_steps=3", "engine=eager", *more])


def by_name(description: Description) -> dict[str, Layer]:
    return {layer.name: layer for layer in description.layers}


def test_spiking_cnn_by_hand(compiled_without_a_compiler: None) -> None:
    layers = by_name(measure(digits("method=fixed_sg")))
    assert list(layers) == ["convs.0", "neurons.0", "pool", "convs.1", "neurons.1", "grid", "head"]
    first, second, head = layers["convs.0"], layers["convs.1"], layers["head"]
    # A still image: the first convolution is computed once, what comes after the first neuron at every step.
    assert (first.steps, first.output, first.parameters, first.macs) == (1, (4, 8, 8), 9 * 4, 9 * 1 * 4 * 64)
    assert (second.steps, second.output, second.parameters) == (3, (8, 4, 4), 9 * 4 * 8)
    assert second.macs == 3 * 9 * 4 * 8 * 16
    assert (head.output, head.parameters, head.macs) == ((10,), 32 * 10 + 10, 3 * 32 * 10)
    neuron = layers["neurons.1"]
    assert (neuron.steps, neuron.output, neuron.parameters, neuron.macs) == (3, (8, 4, 4), 2 * 8 + 1, 0)
    assert first.kind == "Conv2d 3x3"
    # Norm input and potential, and at most the current besides; compiled, the norm's input alone.
    numbers = 3 * 8 * 16
    assert 2 * numbers * FLOAT <= neuron.kept_bytes <= 3 * numbers * FLOAT
    compiled = by_name(measure(digits("method=fixed_sg", "engine=compiled")))
    assert compiled["neurons.1"].kept_bytes == numbers * FLOAT


def test_kept_activations_of_the_twin_by_hand() -> None:
    layers = by_name(measure(digits("model.activation=relu", "time_steps=1")))
    assert layers["convs.0"].kept_bytes == 64 * FLOAT  # the image
    assert layers["neurons.0"].kept_bytes == 2 * 4 * 64 * FLOAT  # input of the norm, output of the ReLU
    assert layers["convs.1"].kept_bytes == 4 * 16 * FLOAT  # what pooling gave
    assert layers["neurons.1"].kept_bytes == 2 * 8 * 16 * FLOAT
    assert layers["head"].kept_bytes == 8 * 4 * FLOAT


@pytest.mark.parametrize("method", ["fixed_sg", "ds_atgo", "psg"])
def test_twin_has_the_same_macs_and_time_multiplies_all_but_the_first_convolution(method: str) -> None:
    spiking = measure(digits(f"method={method}"))
    relu = measure(digits(f"method={method}", "model.activation=relu"))
    one_step = measure(digits(f"method={method}", "time_steps=1"))
    first = by_name(spiking)["convs.0"].macs
    assert spiking.totals()["macs"] == relu.totals()["macs"]
    assert spiking.totals()["macs"] - first == 3 * (one_step.totals()["macs"] - first)
    assert spiking.totals()["kept_bytes"] > relu.totals()["kept_bytes"] > 0
    model = build_model(digits(f"method={method}"))
    assert spiking.totals()["parameters"] == sum(one.numel() for one in model.parameters())


def test_frames_are_new_at_every_step() -> None:
    layers = by_name(measure(load_config(["dataset=digits_events", "model.width=4", "time_steps=5", "engine=eager"])))
    assert layers["convs.0"].steps == 5
    assert layers["convs.0"].macs == 5 * 9 * 2 * 4 * 24 * 24
    assert layers["convs.0"].kept_bytes == 5 * 2 * 24 * 24 * FLOAT


def test_resnet19_at_full_width() -> None:
    network = measure(load_config(["model=resnet19", "dataset=cifar10", "time_steps=1", "recipe=none", "engine=eager"]))
    layers = by_name(network)
    assert network.totals()["parameters"] == 12_698_260
    assert layers["stem"].macs == 9 * 3 * 128 * 32 * 32
    convolutions = [layer for layer in network.layers if layer.kind.startswith("Conv2d")]
    assert len(convolutions) == 1 + 2 * 8 + 2
    assert {layer.macs for layer in convolutions if layer.kind.endswith("3x3")} == {3_538_944, 150_994_944}
    assert layers["head"].macs == 256 * 10


def test_bf16_keeps_less_and_counts_no_copy_of_the_weights() -> None:
    full = measure(digits("model.activation=relu"))
    half = measure(digits("model.activation=relu", "trainer.precision=bf16"))
    assert full.totals()["kept_bytes"] / 2 <= half.totals()["kept_bytes"] < full.totals()["kept_bytes"]
    assert half.totals()["macs"] == full.totals()["macs"]


def test_measuring_leaves_the_random_numbers_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    first = measure(digits("model.encoder=poisson", "dataset.normalize=unit"))
    assert torch.equal(torch.rand(3), expected)
    assert first == measure(digits("model.encoder=poisson", "dataset.normalize=unit"))
    assert by_name(first)["convs.0"].steps == 3  # an encoded image changes over time


OWN = """\
import torch
from torch import nn
from gradspike.models.options import ModelConfig

class Net(nn.Module):
    Config = ModelConfig

    def __init__(self, config, dataset, context):
        super().__init__()
        self.time_steps = context.time_steps
        self.scale = nn.Parameter(torch.ones(64, 5))
        self.twice = nn.Linear(5, 5)
        self.tied = nn.Linear(5, 5, bias=False)
        self.tied.weight = self.twice.weight
        self.neuron = context.layer(5)
        self.unused = nn.Linear(5, 7)
        self.head = nn.Linear(5, dataset.classes)

    def forward(self, images):
        x = self.twice(self.twice(images.flatten(1) @ self.scale))
        return self.head(self.neuron(self.tied(x), static=True)).view(self.time_steps, -1, self.head.out_features)
"""


def test_every_parameter_and_mac_is_somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parameters and products outside of layers, a layer called twice, tied weights, a layer that is not computed."""
    (tmp_path / "odd_net.py").write_text(OWN)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "odd.yaml").write_text("name: odd_net:Net\nactivation: spike\nencoder: direct\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    config = load_config(["model=odd", "dataset=digits", "time_steps=2"], str(tmp_path))
    network = measure(config)
    layers = by_name(network)
    assert (layers[OUTSIDE].parameters, layers[OUTSIDE].macs) == (320, 320)
    assert (layers["twice"].kind, layers["twice"].parameters, layers["twice"].macs) == ("Linear, 2 times", 30, 50)
    assert (layers["tied"].parameters, layers["tied"].macs) == (0, 25)
    assert (layers["unused"].kind, layers["unused"].parameters, layers["unused"].macs) == ("not called", 42, 0)
    assert network.totals()["macs"] == 320 + 50 + 25 + 2 * 50
    assert network.totals()["parameters"] == sum(one.numel() for one in build_model(config).parameters())


def test_timm_network_with_its_report() -> None:
    words = ["model=timm", "model.name=resnet10t", "dataset=cifar10", "recipe=none", "time_steps=2", "engine=eager"]
    config = load_config(words)
    network = measure(config)
    assert any("batch norm + activation" in line for line in network.report)
    assert by_name(network)["network.conv1.0"].steps == 1
    assert by_name(network)["network.fc"].macs == 2 * 512 * 10
    assert network.totals()["parameters"] == sum(one.numel() for one in build_model(config).parameters())


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["model=resnet19", "dataset=cifar10", "method=ds_atgo", "model.width=0.0625", "dataset.image_size=16"]
    words += ["engine=eager"]
    code, printed, _ = here(["describe", *words, f"out={tmp_path / 'cost.json'}"], capsys)
    assert code == 0
    assert "resnet19 on cifar10 (3x16x16), method ds_atgo, T = 2, fp32" in printed
    assert max(map(len, printed.splitlines()[:-1])) <= 120
    twins = ("ReLU twin, T = 2", "ReLU twin, T = 1")
    for part in ("blocks.3.shortcut.1", "Conv2d 3x3 /2", "SpikingNorm", "total", *twins):
        assert part in printed
    assert "published" not in printed  # not of this width

    written = json.loads((tmp_path / "cost.json").read_text())
    assert written["label"] == "ds_atgo_cifar10_resnet19"
    assert written["total"]["macs"] == written["twins"]["ReLU twin, T = 2"]["macs"]
    assert written["total"]["macs"] == sum(layer["macs"] for layer in written["layers"])
    assert f"{written['total']['parameters']:,}" in printed


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["model=resnet1"], 2, "'resnet19'"),
        (["optimizer.lr=-1"], 2, "optimizer.lr=-1: must be greater than 0"),
        (["seed=1,2"], 2, "seed=1,2: only one value is allowed"),
        (["-m"], 2, "unknown flag '-m'"),
        (["--config-dir"], 2, "--config-dir needs a folder"),
        (["out=/no/such/folder/x.json"], 2, "unknown folder '/no/such/folder'"),
        (["out=/tmp"], 2, "out=/tmp: must be a file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_refusals(words: list[str], code: int, said: str) -> None:
    result = command("describe", *words, python=IMPORT_TIMES)
    errors = [line for line in result.stderr.splitlines() if not line.startswith("import time:")]
    assert result.returncode == code
    assert said in "\n".join(errors)
    assert "Traceback" not in result.stderr
    assert "torch" not in imported(result.stderr)


def test_help() -> None:
    result = command("describe", "--help")
    assert result.returncode == 0
    assert "gradspike describe model=resnet19 dataset=cifar10 method=ds_atgo" in result.stdout
