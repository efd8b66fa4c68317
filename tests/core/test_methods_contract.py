"""The contract of methods, for every registered method, every YAML variant and methods of one's own.

GRADSPIKE_METHODS=my_lab.rule:Rule (several with commas) runs the same tests on methods of one's own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from pydantic import ValidationError
from torch import nn

from gradspike.collected import collect_losses
from gradspike.engine.base import Engine
from gradspike.errors import ConfigError
from gradspike.methods.options import MethodConfig
from gradspike.methods.registry import METHODS
from gradspike.models.spiking_layers import name_layers
from gradspike.surrogate import SURROGATES
from helpers.engines import compiled_slowly
from helpers.method_checks import CHECKS, T, make_input, make_layer, method_config

CONF = Path(__file__).parents[2] / "conf"
YAMLS = sorted(path.stem for path in (CONF / "method").glob("*.yaml"))
USERS = [path.strip() for path in os.environ.get("GRADSPIKE_METHODS", "").split(",") if path.strip()]


def composed(name: str) -> dict[str, Any]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        options = OmegaConf.to_container(compose(f"method/{name}"))
    assert isinstance(options, dict)
    return options["method"]


def config_of(name: str) -> MethodConfig:
    return method_config(**(composed(name) if name in YAMLS else {"name": name}))


@compiled_slowly
@pytest.mark.parametrize("name", sorted({*METHODS.names(), *YAMLS, *USERS}))
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_contract(engine: Engine, check: Callable[[MethodConfig], None], name: str) -> None:
    check(config_of(name))


@compiled_slowly
@pytest.mark.parametrize("surrogate", sorted(SURROGATES))
@pytest.mark.parametrize("name", [*METHODS.names(), *USERS])
def test_any_method_trains_with_any_shape(engine: Engine, name: str, surrogate: str) -> None:
    field = METHODS.config_class(name).model_fields["surrogate"]
    shapes = get_args(field.annotation) or SURROGATES  # a method may take some of them only
    if surrogate not in shapes:
        with pytest.raises(ValidationError, match="surrogate"):
            method_config(name, surrogate=surrogate)
        return
    layer = make_layer(method_config(name, surrogate=surrogate))
    y = make_input().requires_grad_()
    layer(y).square().sum().backward()
    assert y.grad is not None
    assert y.grad.isfinite().all()
    assert y.grad.abs().sum() > 0


def test_every_method_has_a_yaml() -> None:
    assert set(METHODS.names()) <= set(YAMLS)


@pytest.mark.parametrize("name", METHODS.names())
def test_yaml_spells_out_all_defaults(name: str) -> None:
    options = composed(name)
    assert next(iter(options)) == "name"
    assert options == METHODS.config_class(name).model_validate({"name": name}).model_dump()


@pytest.mark.parametrize("name", sorted(set(YAMLS) - set(METHODS.names())))
def test_variant_is_labelled_by_its_file_and_differs_from_its_method(name: str) -> None:
    options = composed(name)
    assert options["label"] == name
    base = METHODS.config_class(options["name"]).model_validate({"name": options["name"]}).model_dump()
    assert {**options, "label": None} != base


def test_names_of_shapes_are_those_of_the_shapes() -> None:
    for name in SURROGATES:
        assert method_config("fixed_sg", surrogate=name).surrogate == name
    with pytest.raises(ValidationError) as error:
        method_config("fixed_sg", surrogate="rectangle")
    assert all(name in str(error.value) for name in SURROGATES)
    assert "Did you mean 'rectangular'?" in str(error.value)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("fixed_sg", {"v_threshold": 0}),
        ("fixed_sg", {"width": 0}),
        ("fixed_sg", {"widht": 1}),
        ("lsg", {"surrogate": "square"}),
        ("ds_atgo", {"momentum": 1.5}),
        ("ds_atgo", {"firing_factor": -1}),
        ("ds_atgo", {"driver": "variance"}),
        ("psg", {"width": -1}),
        ("psg", {"pda_weight": -0.1}),
        ("asgl", {"surrogate": "arctan"}),
        ("asgl", {"width_per": "image"}),
        ("asgl", {"adam_lr": 0.0}),
        ("asgl", {"milestones": [0.5, 1.5]}),
    ],
)
def test_options_out_of_range_are_refused(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        method_config(name, **options)


def test_unknown_method_gets_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match="mpd_agl"):
        METHODS.config_class("mpd_alg")


USER_FILE = '''
from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn

from gradspike.methods.base import LayerFacts, Method, Plan
from gradspike.methods.options import MethodConfig


class SlopeConfig(MethodConfig):
    slope: float = 0.5


class Slope(Method):
    """A learned base width that grows over time, and a loss on the potential."""

    Config: ClassVar = SlopeConfig

    def __init__(self, config, time_steps, channels):
        super().__init__(config, time_steps, channels)
        self.log_width = nn.Parameter(torch.zeros(()))

    def plan(self, facts: LayerFacts) -> Plan:
        growth = 1 + self.config.slope * torch.arange(facts.time_steps, device=facts.decay.device)
        widths = (self.log_width.exp() * growth).to(facts.decay.dtype)
        return Plan(facts.full(facts.v_threshold), widths)

    has_membrane_loss = True

    def membrane_loss(self, facts, mean, variance):
        return 0.1 * mean.square().mean()


class Forgetful(Method):
    pass


class Blind(Method):
    measures_membrane = True


class Misshapen(Method):
    def plan(self, facts):
        return Plan(facts.full(1.0)[:1], facts.full(1.0))


class NotAMethod:
    Config = MethodConfig
'''


@pytest.fixture(scope="module")
def user_module(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("my_lab")
    (folder / "my_lab_rule.py").write_text(USER_FILE)
    sys.path.insert(0, str(folder))
    yield "my_lab_rule"
    sys.path.remove(str(folder))
    sys.modules.pop("my_lab_rule", None)


@compiled_slowly
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_a_users_file_keeps_the_contract(
    engine: Engine, check: Callable[[MethodConfig], None], user_module: str
) -> None:
    check(method_config(f"{user_module}:Slope", slope=0.25))


def test_a_users_options_are_validated(user_module: str) -> None:
    with pytest.raises(ValidationError, match="slop"):
        method_config(f"{user_module}:Slope", slop=0.25)


@pytest.mark.parametrize("broken", ["Forgetful", "Blind", "Misshapen"])
def test_a_broken_method_is_named_with_its_layer_at_build_time(broken: str, user_module: str) -> None:
    model = nn.ModuleDict({"stage2": make_layer(method_config(f"{user_module}:{broken}"))})
    with pytest.raises(ConfigError, match=rf"{broken}.*stage2"):
        name_layers(model)


def test_what_is_no_method_is_refused(user_module: str) -> None:
    with pytest.raises(ConfigError, match="NotAMethod"):
        make_layer(MethodConfig(name=f"{user_module}:NotAMethod"))
    with pytest.raises(ConfigError, match="Nowhere"):
        method_config(f"{user_module}:Nowhere")


def test_a_tiny_width_is_kept_and_counted() -> None:
    layer = make_layer(method_config("mpd_agl"))
    with torch.no_grad():
        layer.norm.weight.fill_(-1.0)
    layer(make_input())
    assert layer.method.width_clamps == T
    assert torch.equal(layer.inspect(make_input()).widths, torch.full((T,), 1e-3))
    layer.eval()(make_input())
    assert layer.method.width_clamps == T
    assert "method.width_clamps" not in layer.state_dict()


def test_losses_are_collected_only_where_asked_for() -> None:
    config = method_config("psg_pda", pda_weight=0.5)
    first, second = make_layer(config), make_layer(config, seed=7)
    y = make_input()
    with collect_losses() as extra:
        first(y), second(2 * y)
    first(y)
    assert len(extra.losses) == 2
    total = extra.mean()
    assert isinstance(total, torch.Tensor)
    torch.testing.assert_close(total, (extra.losses[0] + extra.losses[1]) / 2)
    with collect_losses() as extra:
        first.eval()(y)
        make_layer(method_config("psg"))(y)
    assert extra.mean() == 0.0
