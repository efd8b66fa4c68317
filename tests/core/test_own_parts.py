"""A neuron and a norm from outside the package: one file and its import path, as for a method."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from gradspike.config.compose import load_config
from gradspike.errors import ConfigError
from gradspike.methods.base import build_method
from gradspike.neurons.base import build_neuron
from gradspike.norms.base import build_norm
from gradspike.spiking_norm import SpikingNorm
from gradspike.training.build import build_model
from helpers.engines import ENGINES
from helpers.method_checks import method_config
from helpers.part_options import neuron_config, norm_config

PARTS = """\
from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field

from gradspike.neurons.base import Neuron
from gradspike.neurons.options import NeuronConfig
from gradspike.norms.tdbn import Tdbn, TdbnConfig


class SlowConfig(NeuronConfig):
    floor: float = Field(default=0.5, ge=0, lt=1)


class Slow(Neuron):
    Config: ClassVar[type[SlowConfig]] = SlowConfig

    def __init__(self, config: SlowConfig, time_steps: int, channels: int, v_threshold: float) -> None:
        super().__init__(config, time_steps, channels, v_threshold)
        self.raw = torch.nn.Parameter(torch.zeros(()))
        self.floor = config.floor

    @property
    def decay(self):
        return self.floor + (1 - self.floor) * torch.sigmoid(self.raw)


class ShiftedConfig(TdbnConfig):
    shift: float = 0.25


class Shifted(Tdbn):
    Config: ClassVar[type[ShiftedConfig]] = ShiftedConfig

    def __init__(self, config: ShiftedConfig, channels: int, v_threshold: float, branches: int = 1) -> None:
        super().__init__(config, channels, v_threshold, branches)
        torch.nn.init.constant_(self.bias, config.shift * v_threshold)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "own_parts_of_a_layer.py").write_text(PARTS)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "own_parts_of_a_layer"
    sys.modules.pop("own_parts_of_a_layer", None)


def words(module: str, *more: str) -> list[str]:
    neuron = ["~neuron", f"+neuron.name={module}:Slow", "+neuron.floor=0.8"]
    norm = [f"norm.name={module}:Shifted", "+norm.shift=0.5"]
    return ["dataset=digits", "method=lsg", "model.width=4", "engine=eager", *neuron, *norm, *more]


def test_they_take_their_options_and_train(module: str) -> None:
    config = load_config(words(module))
    assert module not in sys.modules  # options are checked without importing the file
    model = build_model(config)
    layers = [layer for layer in model.modules() if isinstance(layer, SpikingNorm)]
    assert layers
    for layer in layers:
        assert layer.neuron.decay.item() == pytest.approx(0.9)
        assert layer.norm is not None
        assert layer.norm.bias.tolist() == pytest.approx([0.5 * 0.5] * layer.channels)
    model(torch.rand(3, 1, 8, 8)).square().sum().backward()
    for layer in layers:
        assert layer.neuron.get_parameter("raw").grad is not None


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("neuron.floor=1", "neuron.floor=1: must be less than 1"),
        ("+neuron.flor=0.5", "Did you mean 'neuron.floor'"),
        ("norm.alpha=0", "norm.alpha=0: must be greater than 0"),
        ("norm.name=own_parts_of_a_layer:Shiftd", "has no class 'Shiftd'. Did you mean 'Shifted'?"),
        ("neuron.name=own_parts_of_a_layer:Shifted", "must be a subclass of gradspike.neurons.options.NeuronConfig"),
    ],
)
def test_mistakes_are_answered_before_the_file_is_imported(module: str, word: str, said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        load_config(words(module, word))
    assert module not in sys.modules


@pytest.mark.parametrize(
    ("word", "said"),
    [("neuron.name=plfi", "Did you mean 'plif'"), ("norm.name=tdbn_gian", "Did you mean 'tdbn_gain'")],
)
def test_a_mistyped_name_gets_the_nearest_one(word: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_config([word])


OTHER_KINDS = """\
import torch

from gradspike.methods.options import MethodConfig
from gradspike.neurons.base import Neuron
from gradspike.neurons.options import NeuronConfig
from gradspike.norms.options import NormConfig


class OtherMethod:
    Config = MethodConfig


class OtherNeuron:
    Config = NeuronConfig


class OtherNorm:
    Config = NormConfig


class OtherWithoutDecay(Neuron):
    def __init__(self, config, *layer):
        super().__init__(config, *layer)


class OtherWithTwoDecays(OtherWithoutDecay):
    decay = torch.ones(2)
"""


def test_a_class_of_another_kind_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other_kinds_of_parts.py").write_text(OTHER_KINDS)
    monkeypatch.syspath_prepend(str(tmp_path))
    name = "other_kinds_of_parts:Other"
    said = "' must be a subclass of gradspike"
    with pytest.raises(ConfigError, match=rf"method '{name}Method{said}.methods.base.Method\."):
        build_method(method_config(f"{name}Method"), time_steps=2, channels=3)
    with pytest.raises(ConfigError, match=rf"neuron '{name}Neuron{said}.neurons.base.Neuron\."):
        build_neuron(neuron_config(f"{name}Neuron"), 4, 2, 1.0)
    with pytest.raises(ConfigError, match=rf"norm '{name}Norm{said}.norms.base.ChannelNorm\."):
        build_norm(norm_config(f"{name}Norm"), channels=3, v_threshold=1.0)
    for neuron in ("WithoutDecay", "WithTwoDecays"):
        with pytest.raises(ConfigError, match=rf"neuron '{name}{neuron}': its attribute `decay` must be a scalar"):
            build_neuron(neuron_config(f"{name}{neuron}"), 4, 2, 1.0)


OWN_METHOD = """\
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from gradspike.methods.base import LayerFacts, Method, Plan
from gradspike.methods.options import MethodConfig


class PerStepConfig(MethodConfig):
    start: float = Field(default=1.0, gt=0)


class PerStep(Method):
    Config: ClassVar[type[PerStepConfig]] = PerStepConfig

    def __init__(self, config: PerStepConfig, time_steps: int, channels: int) -> None:
        super().__init__(config, time_steps, channels)
        self.raw = nn.Parameter(torch.full((time_steps,), config.start).log())

    def quantities(self) -> dict[str, Tensor]:
        return {"last_width": self.raw[-1].exp()}

    def plan(self, facts: LayerFacts) -> Plan:
        return Plan(facts.full(facts.v_threshold), self.raw.exp().to(facts.dtype))
"""

OWN_NORM = """\
from typing import ClassVar

import torch
from torch import Tensor, nn

from gradspike.norms.base import ChannelNorm
from gradspike.norms.options import NormConfig


class Centred(ChannelNorm):
    Config: ClassVar[type[NormConfig]] = NormConfig

    def __init__(self, config: NormConfig, channels: int, v_threshold: float, branches: int = 1) -> None:
        super().__init__(config, channels, scale=v_threshold)
        self.centre = nn.Parameter(torch.zeros(()))

    def forward(self, y: Tensor, repeats: int = 1, update: bool = True) -> Tensor:
        return super().forward(y, repeats=repeats, update=update) + self.centre
"""


@pytest.mark.parametrize(
    ("source", "chosen", "learned"),
    [
        (OWN_METHOD, ["method=lsg", "method.name=short_part:PerStep", "+method.start=0.5"], "method.raw"),
        (OWN_NORM, ["~norm", "+norm.name=short_part:Centred"], "norm.centre"),
    ],
    ids=["method", "norm"],
)
def test_a_method_and_a_norm_in_a_few_lines(
    source: str, chosen: list[str], learned: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of fewer than 30 lines, with equal gradients on both kinds of engine; the probe shows what it names."""
    assert len(source.splitlines()) < 30
    (tmp_path / "short_part.py").write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    model = build_model(load_config([*chosen, "dataset=digits", "model.width=4", "engine=eager"]))
    layers = [layer for layer in model.modules() if isinstance(layer, SpikingNorm)]
    images, gradients = torch.rand(3, 1, 8, 8), []
    for run in (ENGINES["eager"], ENGINES["formulas"]):
        model.zero_grad()
        for layer in layers:
            layer._run = run
        model(images).square().sum().backward()
        gradients.append([layer.get_parameter(learned).grad for layer in layers])
    for eager, formulas in zip(*gradients, strict=True):
        assert eager.abs().sum() > 0
        torch.testing.assert_close(formulas, eager)
    if learned == "method.raw":
        trace = layers[0].inspect(torch.rand(8, layers[0].channels, 8, 8))
        assert trace.own["last_width"].item() == pytest.approx(0.5)
    sys.modules.pop("short_part", None)


def test_the_neuron_of_the_docs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`docs/add_a_neuron.md`, followed literally: it trains, with equal gradients on both kinds of engine."""
    page = (Path(__file__).parents[2] / "docs" / "add_a_neuron.md").read_text(encoding="utf-8")
    source, command = (
        re.findall(rf"```{language}\n(.*?)```", page, flags=re.DOTALL)[0] for language in ("python", "bash")
    )
    assert len(source.splitlines()) <= 30
    (tmp_path / "quadratic.py").write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    variable, gradspike, train, *words = shlex.split(command)
    assert (variable, gradspike, train) == ("PYTHONPATH=.", "gradspike", "train")
    model = build_model(load_config([*words, "model.width=4", "engine=eager"]))
    layers = [layer for layer in model.modules() if isinstance(layer, SpikingNorm)]
    images = torch.rand(3, 1, 8, 8)
    gradients = []
    for run in (ENGINES["eager"], ENGINES["formulas"]):
        model.zero_grad()
        for layer in layers:
            layer._run = run
        model(images).square().sum().backward()
        gradients.append([layer.neuron.get_parameter("curve").grad for layer in layers])
    for eager, formulas in zip(*gradients, strict=True):
        assert eager.abs().sum() > 0
        torch.testing.assert_close(formulas, eager)
