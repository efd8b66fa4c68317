"""docs/own_parts.md, followed literally: each file is written, each command typed, and the part takes part."""

from __future__ import annotations

import json
import math
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import gradspike
from gradspike.config import trust
from gradspike.errors import ConfigError
from gradspike.spiking_norm import LayerContext, SpikingNorm
from gradspike.training.build import build_model
from helpers.command import ROOT, TINY, here
from helpers.engines import ENGINES
from helpers.method_checks import method_config
from helpers.part_options import neuron_config, norm_config

PAGE = (ROOT / "docs/own_parts.md").read_text(encoding="utf-8")
MODULES = ("focal", "cosine", "two_layers", "stripes")


class Page:
    """A reader in an empty folder."""

    def __init__(self, folder: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.data_dir, self.capsys = folder, data_dir, capsys
        for path, text in re.findall(r"^```(?:python|yaml)\n# file: (\S+)\n(.*?)^```$", PAGE, flags=re.M | re.S):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")

    def command(self, section: str) -> list[str]:
        """The words of the command of a section, after `PYTHONPATH=. gradspike`."""
        part = PAGE.partition(f"## {section}\n")[2]
        variable, program, *words = shlex.split(re.findall(r"^```bash\n(.*?)^```$", part, flags=re.M | re.S)[0])
        assert (variable, program) == ("PYTHONPATH=.", "gradspike")
        return words

    def train(self, section: str, *more: str) -> dict[str, Any]:
        """Type it, shortened. Returns the configuration of the run."""
        short = [word for word in TINY if not word.startswith("model.")]
        words = [*self.command(section), *short, f"data_dir={self.data_dir}", "trainer.max_epochs=1", *more]
        code, _, error = here(words, self.capsys)
        assert code == 0, error
        (run,) = (self.folder / "runs").glob("2*")
        assert json.loads((run / "status.json").read_text())["state"] == "finished"
        self.run = run
        config: dict[str, Any] = yaml.safe_load((run / "config.yaml").read_text())
        return config


@pytest.fixture
def page(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Page]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield Page(tmp_path, data_dir, capsys)
    for name in MODULES:
        sys.modules.pop(name, None)
    from gradspike.surrogate import surrogate_of

    surrogate_of.cache_clear()


def test_a_loss(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    config = page.train("A loss", "model.width=4", "loss.mixup=0.5")
    assert (config["loss"]["name"], config["loss"]["gamma"]) == ("focal:Focal", 1.0)
    metrics = json.loads((page.run / "metrics.jsonl").read_text().splitlines()[-1])
    assert 0 < metrics["val/loss"] < 2.31  # less than the cross entropy of guessing, by the factor of the focal loss
    # Another account has not trained with it.
    monkeypatch.setattr(trust, "_typed", set())
    monkeypatch.setenv("XDG_STATE_HOME", str(page.folder))
    with pytest.raises(ConfigError, match=r"loss\.name=focal:Focal\nIf you trust"):
        gradspike.load(page.run, device="cpu")


def test_a_surrogate(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    config = page.train("A surrogate shape", "model.width=4")
    assert config["method"]["surrogate"] == "cosine:COSINE"
    shape = gradspike.load(page.run, device="cpu").model.neurons[0].surrogate
    assert shape.name == "cosine"
    v = torch.linspace(-2, 2, 4001, dtype=torch.float64)
    area = torch.trapezoid(shape.derivative(v, torch.tensor(0.8)), v)
    assert area.item() == pytest.approx(1, abs=1e-6)
    monkeypatch.setattr(trust, "_typed", set())
    monkeypatch.setenv("XDG_STATE_HOME", str(page.folder))
    with pytest.raises(ConfigError, match=r"method\.surrogate=cosine:COSINE\nIf you trust"):
        gradspike.load(page.run, device="cpu")


def test_a_network(page: Page) -> None:
    config = page.train("A network")
    assert (config["model"]["name"], config["model"]["width"], config["recipe"]) == ("two_layers:TwoLayers", 8, None)
    words = ["dataset=cifar10dvs", "recipe=none", "engine=eager", "~model", "+model.name=two_layers:TwoLayers"]
    frames = gradspike.load_config(words)
    model = build_model(frames).eval()
    inputs = torch.rand(frames.time_steps, 2, 2, 48, 48)
    with torch.no_grad():
        assert model(inputs).shape == (frames.time_steps, 2, 10)
    logits, _ = gradspike.Stream(model)(inputs[0])
    assert logits.shape == (2, 10)


def test_a_data_set(page: Page) -> None:
    config = page.train("A data set", "model.width=4")
    assert (config["dataset"]["name"], config["dataset"]["samples"]) == ("stripes:Stripes", 400)
    net = gradspike.load(page.run, device="cpu")
    assert net.class_names == ("across", "down")
    assert len((page.run / "confusion.json").read_text()) > 0


def test_files_of_options(page: Page) -> None:
    config = page.train("Files of options")
    assert config["model"]["name"] == "two_layers:TwoLayers"


def test_a_file_that_python_does_not_find(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The hint names the folder if the file is there; an import that fails inside the file gets none."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", str(tmp_path))])
    code, _, error = here(["train", "loss.name=own_loss_x:Loss"], capsys)
    assert code == 2
    assert "No module named 'own_loss_x'. Add the folder that has own_loss_x.py or the package own_loss_x to" in error
    (tmp_path / "own_loss_x.py").write_text("import a_package_that_is_not_there\n\n\nclass Loss:\n    pass\n")
    code, _, error = here(["train", "loss.name=own_loss_x:Loss"], capsys)
    assert "Add this folder to PYTHONPATH, as in: PYTHONPATH=. gradspike ..." in error
    monkeypatch.syspath_prepend(str(tmp_path))
    code, _, error = here(["train", "loss.name=own_loss_x:Loss"], capsys)
    assert "a_package_that_is_not_there" in error or "must be a subclass" in error
    assert "PYTHONPATH" not in error


LOSSES = """\
import torch
from torch import nn
from gradspike.config.schema import LossConfig


class Base(nn.Module):
    Config = LossConfig

    def __init__(self, config):
        super().__init__()


class PerSample(Base):
    def forward(self, logits, labels):
        return logits.mean((0, 2))


class Detached(Base):
    def forward(self, logits, labels):
        return logits.mean().detach()


class Labels(Base):
    def forward(self, logits, labels):
        return nn.functional.nll_loss(logits.mean(0), labels.long()) if labels.ndim == 1 else labels.nothing


class Learned(Base):
    def __init__(self, config):
        super().__init__(config)
        self.scale = nn.Parameter(torch.ones(()))


class NoModule:
    Config = LossConfig
"""


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("PerSample", r"it returned a tensor of shape \[2\]; expected a scalar tensor with a gradient"),
        ("Detached", r"it returned a tensor of shape \[\]; expected a scalar tensor with a gradient"),
        ("Labels", r"labels \[2, 10\]: AttributeError: 'Tensor' object has no attribute 'nothing'"),
        ("Learned", "does not train its parameter scale. Use a buffer"),
        ("NoModule", "loss 'odd_losses:NoModule' must be a subclass of torch.nn.modules.module.Module"),
        ("Missing", "odd_losses has no class 'Missing'"),
    ],
)
def test_a_loss_that_does_not_fit(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tiny: Callable[..., list[str]],
    name: str,
    said: str,
) -> None:
    (tmp_path / "odd_losses.py").write_text(LOSSES)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match=said):
        gradspike.SpikingClassifier(gradspike.load_config(tiny(f"loss.name=odd_losses:{name}", "loss.mixup=1")))
    sys.modules.pop("odd_losses", None)


SHAPES = """\
import torch
from gradspike.surrogate import SURROGATES, Surrogate

good = SURROGATES["sigmoid"]
WRONG = Surrogate("wrong", lambda v, kappa: 2 * good.derivative(v, kappa), good.primitive, smooth=True)
SHIFTED = Surrogate("shifted", lambda v, k: torch.sigmoid(v / k) * (1 - torch.sigmoid(v / k)) / k**2,
                    lambda v, k: torch.sigmoid(v / k) / k, smooth=True)
tail = lambda v, k: torch.exp(-2 * (v / k).abs())
FLAT = Surrogate("flat", lambda v, k: tail(v, k) / k,
                 lambda v, k: torch.where(v < 0, tail(v, k) / 2, 1 - tail(v, k) / 2),
                 smooth=True)
STEEP = Surrogate("steep", good.derivative, good.primitive, smooth=True)
NUMBER = 3
"""


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("odd_shapes:WRONG", "its derivative is not that of its primitive, for example at v = .*, kappa = 0.7"),
        ("odd_shapes:SHIFTED", "its width_derivative is not that of its primitive"),
        ("odd_shapes:FLAT", "at v = 0, torch differentiates its primitive to 0, which is not its derivative"),
        ("odd_shapes:NUMBER", "must be a gradspike.surrogate.Surrogate"),
        ("odd_shapes:STEPE", "odd_shapes has no 'STEPE'. Did you mean 'STEEP'"),
        ("odd_shapes:", "must be one of rectangular, .*, or an import path such as my_file:SHAPE"),
        ("sigmiod", "Did you mean 'sigmoid'"),
        ("no_such_shapes:A", "surrogate 'no_such_shapes:A' cannot be imported: No module .*PYTHONPATH"),
    ],
)
def test_a_surrogate_that_does_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: Callable[..., list[str]], name: str, said: str
) -> None:
    (tmp_path / "odd_shapes.py").write_text(SHAPES)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match=said):
        build_model(gradspike.load_config(tiny(f"method.surrogate={name}", "method=fixed_sg")))
    sys.modules.pop("odd_shapes", None)


def test_a_surrogate_need_not_be_symmetric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's second shape, in a hand-written and a derived backward pass."""
    part = PAGE.partition("A shape need not be symmetric.")[2]
    (functions,) = re.findall(r"^```python\n(.*?)^```$", part, flags=re.M | re.S)[:1]
    shape = 'LOPSIDED = Surrogate("lopsided", derivative, primitive, smooth=False)\n'
    imports = "import torch\nfrom torch import Tensor\nfrom gradspike.surrogate import Surrogate\n\n"
    (tmp_path / "lopsided.py").write_text(imports + functions + shape)
    monkeypatch.syspath_prepend(str(tmp_path))
    theta = 0.5
    y = torch.tensor([[theta - 0.25, theta, theta + 0.25]])
    expected = torch.tensor([[math.exp(-2), 2.0, math.exp(-2 / 3)]]) * torch.tensor([[2.0, 1.0, 2.0]])
    method = method_config("fixed_sg", surrogate="lopsided:LOPSIDED", width=0.5, v_threshold=theta)
    for neuron in (neuron_config("lif"), neuron_config("lif", fires="above_threshold")):
        for engine in ("eager", "formulas"):
            layer = SpikingNorm(3, LayerContext(1, neuron, method, norm_config("bn")), norm=False)
            layer.use_engine(ENGINES[engine])
            x = y.clone().requires_grad_()
            layer(x).sum().backward()
            torch.testing.assert_close(x.grad, expected, msg=f"{engine}, {neuron.fires}: {x.grad}")
    sys.modules.pop("lopsided", None)
