"""Option classes are read from source files without torch; files that cannot be read this way are imported."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gradspike.config.compose import load_config
from gradspike.data.registry import DATASETS
from gradspike.errors import ConfigError
from gradspike.methods.base import build_method
from gradspike.methods.options import MethodConfig
from gradspike.methods.registry import METHODS
from gradspike.models.registry import MODELS
from gradspike.neurons.registry import NEURONS
from gradspike.norms.registry import NORMS
from gradspike.option_reader import NoSuchClass, NotReadable, read_config
from helpers.command import IMPORT_TIMES, command, execute, imported

HEAVY = {"torch", "lightning", "wandb", "tonic", "timm", "torchvision"}

HEAD = """\
from __future__ import annotations

from enum import Enum
from typing import ClassVar

import torch
from pydantic import Field, field_validator

from gradspike.methods.base import Method, Plan
from gradspike.methods.options import MethodConfig

"""

RULE = """

class Rule(Method):
    Config: ClassVar[type[RuleConfig]] = RuleConfig
    config: RuleConfig

    def plan(self, facts):
        return Plan(facts.full(facts.v_threshold), facts.full(1.0))
"""

PLAIN = "class RuleConfig(MethodConfig):\n    slope: float = Field(default=0.5, gt=0)\n"

Write = Callable[[str, str], str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Write:
    """Write a module that only this test can import. Returns its name."""
    made: list[str] = []

    def written(name: str, text: str) -> str:
        module = f"{name}_{abs(hash(request.node.name))}"
        (tmp_path / f"{module}.py").write_text(text)
        made.append(module)
        return module

    monkeypatch.syspath_prepend(str(tmp_path))
    yield written  # type: ignore[misc]
    for module in made:
        sys.modules.pop(module, None)


def read_early(module: str, name: str = "Rule") -> type[MethodConfig]:
    """The option class, read without importing the module."""
    config: type[MethodConfig] = read_config(module, name)
    assert module not in sys.modules
    return config


def heavy_imports(program: str, folder: Path) -> set[str]:
    result = execute(sys.executable, *IMPORT_TIMES, "-c", program, PYTHONPATH=str(folder))
    assert result.returncode == 0, result.stderr
    return HEAVY & imported(result.stderr)


def test_options_of_every_registered_part_are_read_without_torch(tmp_path: Path) -> None:
    program = (
        "from gradspike.config.validate import PLUGGABLE\n"
        "for registry in PLUGGABLE.values():\n"
        "    for name in registry.names():\n"
        "        assert issubclass(registry.config_class(name), registry.base), name\n"
    )
    assert heavy_imports(program, tmp_path) == set()


@pytest.mark.parametrize("registry", [METHODS, MODELS, DATASETS, NEURONS, NORMS], ids=lambda registry: registry.kind)
def test_the_class_read_is_the_class_of_the_module(registry: Any) -> None:
    """Reading it again in this process, which has imported many modules, gives the same name, keys and defaults."""
    for name in registry.names():
        read, own = registry.config_class(name), registry.implementation(name).Config
        assert (read.__module__, read.__qualname__) == (own.__module__, own.__qualname__)
        assert read.model_json_schema() == own.model_json_schema()


@pytest.mark.parametrize(
    "base", ["FixedSg", "FixedSgConfig"], ids=["inherits the options", "inherits from the option class"]
)
def test_a_method_built_on_one_of_ours_is_read_without_torch(tmp_path: Path, base: str) -> None:
    text = f"from gradspike.methods.fixed_sg import FixedSg, FixedSgConfig\n{RULE.partition('class')[0]}"
    if base == "FixedSg":
        text += "class Rule(FixedSg):\n    pass\n"
    else:
        text += (
            "class RuleConfig(FixedSgConfig):\n    more: int = 1\n\n\nclass Rule(FixedSg):\n    Config = RuleConfig\n"
        )
    (tmp_path / "built_on.py").write_text(text)
    program = (
        "from gradspike.methods.registry import METHODS\n"
        "assert 'width' in METHODS.config_class('built_on:Rule').model_fields"
    )
    assert heavy_imports(program, tmp_path) == set()


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("method.slpoe=1", "Did you mean 'method.slope'"),
        ("method.slope=-1", "method.slope=-1: must be greater than 0"),
        ("method.surrogate=arctann", "Did you mean 'arctan'"),
    ],
)
def test_mistakes_in_options_of_ones_own_method_are_answered_without_torch(
    tmp_path: Path, word: str, said: str
) -> None:
    (tmp_path / "quick_rule.py").write_text(HEAD + PLAIN + RULE)
    (tmp_path / "conf" / "method").mkdir(parents=True)
    options = "name: quick_rule:Rule\nsurrogate: arctan\nslope: 0.5\n"
    (tmp_path / "conf" / "method" / "quick.yaml").write_text(options)
    words = ["--config-dir", str(tmp_path / "conf"), "method=quick", word]
    result = command("train", *words, python=IMPORT_TIMES, PYTHONPATH=str(tmp_path))
    assert result.returncode == 2
    assert said in result.stderr
    assert not HEAVY & imported(result.stderr)


def test_imports_constants_and_functions_of_an_option_class_come_with_it(write: Write) -> None:
    module = write(
        "rule",
        HEAD
        + "import math as m, torch as unused\n"
        + "LIMIT = m.pi\n\n\ndef check(value):\n    return min(value, LIMIT)\n\n\n"
        + "class Base(MethodConfig):\n    slope: float = Field(default=0.5, le=LIMIT)\n\n\n"
        + "class RuleConfig(Base):\n"
        + "    @field_validator('slope')\n    @classmethod\n    def _check(cls, value):\n        return check(value)\n"
        + RULE
        + "raise RuntimeError('imported')\n",
    )
    config = read_early(module)
    assert config.model_validate({"name": "x", "slope": 3}).model_dump()["slope"] == 3
    with pytest.raises(ValueError, match="less than or equal"):
        config.model_validate({"name": "x", "slope": 4})


def test_relative_imports_within_a_package_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "lab_of_relatives"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "common.py").write_text("SLOPE = 0.25\n")
    (package / "base.py").write_text(HEAD + "from .common import SLOPE\n\n\n" + PLAIN.replace("0.5", "SLOPE") + RULE)
    (package / "rule.py").write_text("import torch\nfrom .base import Rule as Base\n\n\nclass Rule(Base):\n    pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    config = read_early("lab_of_relatives.rule")
    assert config.model_fields["slope"].default == 0.25


def test_a_part_gets_its_options_as_its_own_class(write: Write) -> None:
    """Its file, imported after its options were read, defines the class a second time."""
    kinds = "class Kind(Enum):\n    A = 1\n    B = 2\n\n\n"
    text = HEAD + kinds + "class RuleConfig(MethodConfig):\n    kind: Kind = Kind.A\n" + RULE
    name = f"{write('rule', text)}:Rule"
    early = METHODS.config_class(name)
    options = early.model_validate({"name": name, "kind": 2})
    method = build_method(options, time_steps=2, channels=3)
    own = sys.modules[name.partition(":")[0]]
    assert type(method.config) is own.RuleConfig
    assert method.config.kind is own.Kind.B  # type: ignore[attr-defined]
    assert METHODS.config_class(name) is early  # so that configurations validated before and after are equal


def test_a_changed_file_is_read_again(write: Write) -> None:
    module = write("rule", HEAD + PLAIN + RULE)
    assert read_early(module).model_fields["slope"].default == 0.5
    write("rule", HEAD + PLAIN.replace("0.5", "0.75") + RULE)
    assert read_early(module).model_fields["slope"].default == 0.75


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "class Rule(Method):\n    class Config(MethodConfig):\n        slope: float = 0.5\n",
        HEAD
        + "def made():\n    return type('Rule', (Method,), {'Config': RuleConfig})\n\n"
        + PLAIN
        + "\nRule = made()\n",
        HEAD + "NAMES = ['a']\nNAMES.append('slope')\n" + PLAIN.replace("gt=0", "description=NAMES[1]") + RULE,
        HEAD + "START = 1.0\nSTART = 0.5\n" + PLAIN.replace("0.5", "START") + RULE,
        HEAD + "from math import *\n" + PLAIN.replace("0.5", "floor(0.9) + 0.5") + RULE,
        HEAD
        + PLAIN.replace("slope: float", "slope: 'Number'")
        + RULE
        + "\nNumber = float\nRuleConfig.model_rebuild()\n",
        HEAD + PLAIN.replace("0.5", "START") + RULE,
    ],
    ids=[
        "nested",
        "made by a function",
        "changed in place",
        "bound twice",
        "star import",
        "named in quotes",
        "not there",
    ],
)
def test_what_cannot_be_read_is_imported(write: Write, text: str) -> None:
    module = write("rule", text)
    if "START" in text and "START = " not in text:  # neither way works; the import error gives the reason
        with pytest.raises(ConfigError, match=rf"{module}\.py, line 13: NameError: name 'START' is not defined"):
            METHODS.config_class(f"{module}:Rule")
        return
    config = METHODS.config_class(f"{module}:Rule")
    assert config.model_fields["slope"].default == 0.5
    assert config is sys.modules[module].Rule.Config


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import torch\n\nclass Rule(:\n", ".py, line 3: invalid syntax"),
        ("import torch\n\n1 / 0\n\nclass Other:\n    pass\n\nRule = Other", ".py, line 3: ZeroDivisionError"),
        (
            "from gradspike.methods.base import Methodd\nRule = Methodd\n",
            ".py, line 1: ImportError: cannot import name",
        ),
        (
            "import no_such_package\nRule = no_such_package.Rule\n",
            "line 1: ModuleNotFoundError: No module named 'no_such",
        ),
        ("class Ruler:\n    pass\n", "has no class 'Rule'. Did you mean 'Ruler'?"),
        ("Rules = 1\ndef __getattr__(name):\n    raise AttributeError\n", "has no class 'Rule'."),
        ("class Rule:\n    pass\n", "must be a subclass of gradspike.methods.options.MethodConfig"),
        ("class Rule:\n    Config = dict\n", "must be a subclass of gradspike.methods.options.MethodConfig"),
        (
            HEAD + "from gradspike.models.options import ModelConfig as M\nclass Rule:\n    Config = M\n",
            "must be a subclass",
        ),
    ],
)
def test_mistakes_in_the_file_are_reported_with_their_place(write: Write, text: str, said: str) -> None:
    module = write("rule", text)
    with pytest.raises(ConfigError) as error:
        load_config([f"method.name={module}:Rule"])
    assert said in str(error.value)
    assert f"method '{module}:Rule'" in str(error.value)


def test_an_error_in_a_file_that_the_file_imports_names_that_file(write: Write) -> None:
    helper = write("helper", "\n\nWIDTH = undefined\n")
    module = write(
        "rule", f"import {helper}\n" + HEAD.replace("from __future__ import annotations\n", "") + PLAIN + RULE
    )
    early = METHODS.config_class(f"{module}:Rule")  # uses nothing from the helper
    with pytest.raises(ConfigError, match=rf"{helper}\.py, line 3: NameError"):
        build_method(early(name=f"{module}:Rule"), time_steps=2, channels=3)


def test_reasons_not_to_read(write: Write) -> None:
    module = write("rule", HEAD + PLAIN + RULE)
    with pytest.raises(NoSuchClass) as error:
        read_config(module, "Ruel")
    assert error.value.classes == ["RuleConfig", "Rule"]
    for module, name in (("math", "sqrt"), ("no_such_module", "Rule"), ("no_such_package.module", "Rule")):
        if module not in sys.modules:
            with pytest.raises(NotReadable):
                read_config(module, name)
