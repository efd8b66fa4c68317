"""The contract of norms, for every registered norm and norms of one's own.

GRADSPIKE_NORMS=my_lab.norm:Norm (several with commas) runs the same tests on norms of one's own.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from pydantic import ValidationError
from torch import Tensor, nn

from gradspike.engine import eager, formulas, fused
from gradspike.engine.base import Engine, EngineOptions, membrane_statistics
from gradspike.norms.base import ChannelNorm
from gradspike.norms.options import NormConfig
from gradspike.norms.registry import NORMS
from gradspike.norms.tab import Tab
from gradspike.norms.tebn import Tebn
from gradspike.surrogate import SURROGATES
from helpers.engines import compiled_slowly
from helpers.method_checks import B, C, T, make_input
from helpers.norm_checks import CHECKS, make_norm, make_normed_layer
from helpers.part_options import norm_config

CONF = Path(__file__).parents[2] / "conf" / "norm"
USERS = [path.strip() for path in os.environ.get("GRADSPIKE_NORMS", "").split(",") if path.strip()]
NAMES = [*NORMS.names(), *USERS]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_contract(check: Callable[[NormConfig], None], name: str) -> None:
    check(norm_config(name))


@compiled_slowly
@pytest.mark.parametrize("static", [False, True], ids=["frames", "still"])
@pytest.mark.parametrize("name", NAMES)
def test_every_engine_gives_the_numbers_of_the_reference(engine: Engine, name: str, static: bool) -> None:
    """With a smooth surrogate, whose gradient is exact: spikes, all gradients, and the running statistics."""
    y = make_input(2, time_steps=1 if static else T, dtype=torch.float64).unflatten(0, (-1, B))
    found: list[dict[str, Tensor]] = []
    for run in (eager.run, engine):
        layer = make_normed_layer(norm_config(name)).double()
        given = y.clone().requires_grad_()
        facts = layer.facts(given, gradients=True)
        options = EngineOptions(SURROGATES["sigmoid"], smooth=True, potential_norm=layer.potential_norm)
        spikes = run(given, layer.neuron, layer.method, facts, options, layer.norm).spikes
        spikes.square().sum().backward()
        grads = {f"grad {key}": one.grad for key, one in layer.named_parameters() if one.grad is not None}
        assert given.grad is not None
        found.append({"spikes": spikes.detach(), "grad y": given.grad, **grads, **layer.state_dict()})
    assert found[0].keys() == found[1].keys()
    for key, expected in found[0].items():
        torch.testing.assert_close(found[1][key], expected, msg=lambda text, key=key: f"{key}: {text}")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("bn", []),
        ("tebn", ["Norm Tebn runs as plain torch before the neuron, whose kernels are fused without it."]),
        (
            "mpbn",
            ["The norm of the potential has no kernels. Layers run on the reference engine, as with engine=eager."],
        ),
    ],
)
def test_a_run_says_once_if_the_norm_is_not_fused(name: str, said: list[str], caplog: pytest.LogCaptureFixture) -> None:
    fused._tell_of_own_forward.cache_clear()
    fused._tell_of_potential_norm.cache_clear()
    layer = make_normed_layer(norm_config(name))
    layer._run = fused.FusedEngine(formulas)
    with caplog.at_level("INFO", "gradspike.engine.fused"):
        layer(make_input())
        layer(make_input())
    assert [record.getMessage() for record in caplog.records] == said


@pytest.mark.parametrize("name", NORMS.names())
def test_yaml_spells_out_all_defaults(name: str) -> None:
    options = yaml.safe_load((CONF / f"{name}.yaml").read_text(encoding="utf-8"))
    assert next(iter(options)) == "name"
    assert options == norm_config(name).model_dump()


def test_every_norm_has_a_yaml() -> None:
    assert {file.stem for file in CONF.glob("*.yaml")} == set(NORMS.names())


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("bn", {"alpha": 1.0}),
        ("tebn", {"momentum": 0}),
        ("tebn", {"alpha": 1.0}),
        ("tab", {"eps": 0}),
        ("tab", {"sync": "sometimes"}),
        ("tdbn", {"alpha": 0}),
    ],
)
def test_options_out_of_range_are_refused(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        norm_config(name, **options)


def test_bn_is_torchs() -> None:
    norm, plain = make_norm(norm_config("bn")), nn.BatchNorm2d(C)
    plain.load_state_dict(norm.state_dict())
    for seed in range(3):
        torch.testing.assert_close(norm(make_input(seed)), plain(make_input(seed)))
    for key, value in plain.state_dict().items():
        torch.testing.assert_close(norm.state_dict()[key], value, msg=key)


def test_tebn_is_a_batch_norm_times_a_factor() -> None:
    norm = make_norm(norm_config("tebn"))
    assert isinstance(norm, Tebn)
    plain = nn.BatchNorm2d(C)
    plain.load_state_dict({key: value for key, value in norm.state_dict().items() if key != "time_scale"})
    factor = norm.time_scale.detach().repeat_interleave(B).view(-1, 1, 1, 1)
    for training in (True, False):
        norm.train(training), plain.train(training)
        torch.testing.assert_close(norm(make_input()), factor * plain(make_input()))
    for key, value in plain.state_dict().items():
        torch.testing.assert_close(norm.state_dict()[key], value, msg=key)


def test_tab_is_a_batch_norm_of_its_own_for_each_step() -> None:
    """Each fed with all steps until its own, of which the last is kept."""
    norm = make_norm(norm_config("tab"))
    assert isinstance(norm, Tab)
    y, expected = make_input(), []
    plains = [nn.BatchNorm2d(C) for _ in range(T)]
    for t, plain in enumerate(plains):
        rows = {key: value[t] for key, value in norm.state_dict().items() if value.ndim == 2}
        plain.load_state_dict({**rows, "num_batches_tracked": torch.tensor(0)})
        expected.append(norm.time_scale_root.detach()[t] ** 2 * plain(y[: (t + 1) * B])[t * B :])
    torch.testing.assert_close(norm(y), torch.cat(expected), rtol=1e-5, atol=1e-5)
    for t, plain in enumerate(plains):
        torch.testing.assert_close(norm.running_mean[t], plain.running_mean)
        torch.testing.assert_close(norm.running_var[t], plain.running_var)
    norm.eval()
    steps = [plain.eval()(step) for plain, step in zip(plains, y.split(B), strict=True)]
    root = norm.time_scale_root.detach().square().repeat_interleave(B).view(-1, 1, 1, 1)
    torch.testing.assert_close(norm(y), root * torch.cat(steps), rtol=1e-5, atol=1e-5)


def test_tab_sees_no_later_step() -> None:
    norm = make_norm(norm_config("tab"))
    y = make_input()
    later = y.clone()
    later[2 * B :] += 5
    assert torch.equal(norm(y, update=False)[: 2 * B], norm(later, update=False)[: 2 * B])
    assert not torch.equal(norm(y, update=False)[2 * B :], norm(later, update=False)[2 * B :])


class Halved(ChannelNorm):
    """A norm of one's own that replaces `forward` alone."""

    def __init__(self, config: NormConfig, channels: int, v_threshold: float, branches: int = 1) -> None:
        super().__init__(config, channels)

    def forward(self, y: Tensor, repeats: int = 1, update: bool = True) -> Tensor:
        return 0.5 * super().forward(y, repeats, update)


@compiled_slowly
def test_a_forward_of_ones_own_is_not_fused_away(engine: Engine) -> None:
    layer = make_normed_layer(norm_config("bn"))
    halved, full = copy.deepcopy(layer), copy.deepcopy(layer)
    halved.norm = Halved(norm_config("bn"), C, v_threshold=1.0)
    assert full.norm is not None
    halved.norm.load_state_dict(full.norm.state_dict())
    with torch.no_grad():
        full.norm.weight.mul_(0.5), full.norm.bias.mul_(0.5)
    halved.method = full.method  # the same thresholds and widths
    for training in (True, False):
        halved.train(training), full.train(training)
        assert torch.equal(halved(make_input()), full(make_input()))
        trace = halved.inspect(make_input())
        mean, _ = membrane_statistics(trace.u)
        torch.testing.assert_close(mean, full.inspect(make_input()).u.mean())
