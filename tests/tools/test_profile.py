"""The time of a training step: rows add up, work counts in its row, and the command's name shadows no module."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from gradspike.config.compose import load_config
from gradspike.config.schema import ExperimentConfig
from gradspike.config.validate import validate
from gradspike.spiking_norm import SpikingNorm
from gradspike.tools.profile.clock import Clock, Part
from gradspike.tools.profile.command import profile
from gradspike.tools.profile.measure import KINDS, NORM, OPTIMISER, PRODUCTS, Profile, kind_of, measure
from gradspike.training.build import build_data
from gradspike.training.trainer import quieten
from helpers.command import here


def measured(config: ExperimentConfig, *more: ExperimentConfig, steps: int = 3) -> list[Profile]:
    quieten()
    data = build_data(config)
    data.prepare_data()
    data.setup()
    return measure([config, *more], data, steps, rounds=1)


def twin_of(config: ExperimentConfig) -> ExperimentConfig:
    plain = config.plain()
    plain["model"]["activation"] = "relu"
    return validate(plain)


def test_every_interval_has_one_part() -> None:
    clock = Clock(torch.device("cpu"))
    a, b = Part("a", "forward", "x"), Part("b")
    for part in (a, b, a, a, b):
        clock.mark(part)
    spent = clock.between(0, 4)
    assert set(spent) == {a, b}
    assert sum(spent.values()) == pytest.approx(clock.marks[4][1] - clock.marks[0][1])
    assert a.backward() == Part("a", "backward", "x")


@pytest.mark.parametrize("method", ["fixed_sg", "ds_atgo"])
def test_residual_network_and_its_twin(
    tiny_config: Callable[..., ExperimentConfig], compiled_without_a_compiler: None, method: str
) -> None:
    words = ["dataset=digits", "model=resnet19", "model.width=0.02", f"method={method}", "dataset.batch_size=8"]
    data_dir = tiny_config("dataset=digits").data_dir
    # The compiled engine keeps the same as the twin's norm. The twin also keeps the output of its ReLU, the reference
    # engine the potential.
    engine = "compiled" if method == "ds_atgo" else "eager"
    words += ["time_steps=2", f"data_dir={data_dir}", "trainer.accelerator=cpu", f"engine={engine}"]
    config = load_config(words)
    mine, twin = measured(config, twin_of(config))
    for one in (mine, twin):
        assert sum(one.kind(kind) for kind in KINDS) == pytest.approx(one.total())
        assert all(one.kind(kind) > 0 for kind in KINDS)
        layers = {part.layer for part in one.seconds if part.kind in (PRODUCTS, NORM)}
        assert len(layers) == 21 + 20  # 19 convolutions and 2 linear layers; a neuron for each but the last
        for name in layers:
            assert one.layer(name, "forward") > 0, name
            assert one.layer(name, "backward") > 0, name
        assert one.waits is None
    kept = [one.memory["kept by norm + neuron"] for one in (mine, twin)]
    assert kept[0] < kept[1] if engine == "compiled" else kept[0] > kept[1]
    assert mine.memory["batch"] == twin.memory["batch"]
    assert mine.memory["optimiser state"] == mine.memory["gradients"]


class Slow(torch.autograd.Function):
    """Slow in both directions."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        time.sleep(0.01)
        return x.clone()

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> Tensor:
        time.sleep(0.03)
        return grad


def test_time_lands_at_the_layer_and_in_the_direction_that_took_it(
    tiny_config: Callable[..., ExperimentConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = SpikingNorm.forward

    def slow(self: SpikingNorm, y: Tensor, static: bool = False) -> Tensor:
        spikes = forward(self, y, static)
        return Slow.apply(spikes) if self.layer_name == "neurons.1" else spikes

    monkeypatch.setattr(SpikingNorm, "forward", slow)
    config = tiny_config("dataset=digits", "method=fixed_sg", "dataset.batch_size=32")
    (mine,) = measured(config)
    # A sleep takes at least this long on any machine; other parts may take any time.
    assert mine.layer("neurons.1", "forward") >= 0.01
    assert mine.layer("neurons.1", "backward") >= 0.03


def test_slow_optimiser_and_probe_have_rows_of_their_own(
    tiny_config: Callable[..., ExperimentConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    step, inspect = torch.optim.SGD.step, SpikingNorm.inspect

    def slow_step(self: torch.optim.SGD, closure: Callable[[], float]) -> object:
        loss = step(self, closure)
        time.sleep(0.02)
        return loss

    def slow_inspect(self: SpikingNorm, y: Tensor, static: bool = False) -> object:
        time.sleep(0.1)
        return inspect(self, y, static)

    monkeypatch.setattr(torch.optim.SGD, "step", slow_step)
    monkeypatch.setattr(SpikingNorm, "inspect", slow_inspect)
    config = tiny_config("dataset=digits", "method=fixed_sg", "dataset.batch_size=32", "probe.every_n_steps=5")
    (mine,) = measured(config, steps=6)
    assert mine.kind(OPTIMISER) >= 0.02
    # Two layers, every fifth step.
    assert mine.kind("probe") >= 0.9 * 2 * 0.1 / 5


def test_kinds() -> None:
    assert kind_of(nn.Conv2d(1, 1, 1)) == kind_of(nn.Linear(1, 1)) == PRODUCTS
    assert kind_of(nn.BatchNorm2d(1)) == NORM
    assert kind_of(nn.AvgPool2d(2)) == "other"


def test_command(data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "profile.json"
    words = ["dataset=digits", "model.width=4", "model.depth=2", "trainer.accelerator=cpu", "dataset.batch_size=32"]
    words += [f"data_dir={data_dir}", "engine=eager", "steps=2", f"out={out}"]
    code, printed, _ = here(["profile", *words], capsys)
    assert code == 0
    for word in ("norm + neuron", "100.0 %", "twin", "neurons.1", "Waits of the host"):
        assert word in printed
    numbers = json.loads(out.read_text())
    assert sum(part["seconds"] for part in numbers["step"]["parts"]) == pytest.approx(numbers["step"]["seconds"])
    assert numbers["twin"]["memory_bytes"]["kept by conv, linear"] > 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["steps=1"], "steps=1: must be greater than or equal to 2"),
        (["steps=few"], "steps=few: must be an integer"),
        (["trainer.compile=true"], "trainer.compile=false"),
        (["trainer.devices=2"], "one device"),
        (["trainer.accumulate=2"], "trainer.accumulate=1"),
        (["datset=digits"], "dataset"),
        (["--fast"], "unknown flag '--fast'"),
        (["dataset.batch_size=500"], "batch_size=500: an epoch has 2 batches, .* Choose one of at most 419"),
        (["out=nowhere/at/all.json"], "unknown folder 'nowhere/at'"),
    ],
)
def test_mistakes(words: list[str], message: str) -> None:
    from gradspike.errors import UserError

    with pytest.raises(UserError, match=message):
        profile(words)


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        profile(["--help"])
    assert end.value.code == 0
    assert "gradspike profile" in capsys.readouterr().out
