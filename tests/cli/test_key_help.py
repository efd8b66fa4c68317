"""`gradspike train --help` lists every key with its value, what is allowed and what it means, in the width given."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic.fields import FieldInfo

from gradspike.cli.columns import fitted
from gradspike.cli.key_help import SECTIONS, key_help, section_meanings
from gradspike.config.allowed import allowed
from gradspike.config.compose import CONF_DIR
from gradspike.config.meanings import meanings
from gradspike.config.schema import ExperimentConfig
from gradspike.config.validate import section_class
from gradspike.errors import ConfigError
from gradspike.registry import Strict
from gradspike.surrogate import SURROGATES
from gradspike.touches import leaves, option_classes
from helpers.command import IMPORT_TIMES, command

FILES = sorted(file for name in SECTIONS for file in (CONF_DIR / name).glob("*.yaml"))


def options(file: Path) -> dict[str, Any]:
    """The options in a file and in those it is based on."""
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    found = content.get(file.parent.name, content) if file.parent.name == "dataset" else content
    below: dict[str, Any] = {}
    for name in content.get("defaults", []):
        if isinstance(name, str) and name != "_self_":
            below |= options(file.with_name(f"{name}.yaml"))
    return below | found


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_every_key_of_an_option_has_a_meaning(file: Path) -> None:
    section = file.parent.name
    known = section_meanings(section, file.stem, [CONF_DIR])
    values = options(file)
    every = [key for key, _ in leaves(section_class(section, values), f"{section}.")]
    keys = [key for key in every if key.split(".")[1] in values]
    assert keys
    assert [key for key in keys if not known.get(key)] == []


FREE_TEXT = {"name", "label", "source", "train_folder", "val_folder", "test_folder", "pretrained"}
FREE_TEXT |= {"project", "entity", "group", "tags"}  # W&B's


def fields(schema: type[Strict]) -> Iterator[tuple[str, FieldInfo]]:
    """Every key of an option class, without the sections around it."""
    for name, field in schema.model_fields.items():
        inner = option_classes(field)
        yield from fields(inner[0]) if inner else [(name, field)]  # type: ignore[arg-type]


@pytest.mark.parametrize("section", SECTIONS)
def test_text_has_its_choices(section: str) -> None:
    """`text` says nothing about what is allowed, so only names, labels and paths have it."""
    for file in (CONF_DIR / section).glob("*.yaml"):
        for key, field in fields(section_class(section, options(file))):
            assert "any value" not in allowed(field), key
            assert "text" not in allowed(field) or key in FREE_TEXT, key


def test_surrogates_are_listed_and_each_is_accepted() -> None:
    (line,) = [line for line in key_help(["method=lsg"], [CONF_DIR]).split("  method.") if line.startswith("surrogate")]
    *shapes, own = " ".join(line.split("  ", 1)[1].split()).partition(" shape ")[0].split(" | ")
    assert shapes == list(SURROGATES)
    assert own.startswith("my_file:SHAPE")


def test_every_other_key_has_a_meaning() -> None:
    known = meanings(CONF_DIR / "config.yaml")
    others = [key for key, _ in leaves(ExperimentConfig) if key.partition(".")[0] not in SECTIONS[:-2]]
    assert [key for key in others if not key.startswith("recipe") and not known.get(key)] == []


def test_value_type_range_and_meaning_without_torch() -> None:
    """In 60 columns; the value is the one that the other words give, here the recipe's."""
    result = command(
        "train", "--help", "method=asgl", "dataset=cifar100", "trainer", python=IMPORT_TIMES,
        COLUMNS="60",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert not re.search(r"\| +(torch|lightning|numpy)$", result.stderr, flags=re.MULTILINE)
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 60
    place = lines.index("  method.p=0.2  number 0 to 1")
    assert lines[place + 1] == "      share of elements that emit the primitive"
    assert "  method.width_per=layer  layer | channel | neuron" in lines
    assert "  trainer.gradient_clip=null  number above 0, or null" in lines
    assert "  dataset.augment.shift=4  integer 0 to 64" in lines


def test_mistakes_get_the_nearest_match() -> None:
    with pytest.raises(ConfigError, match=r"unknown section 'trainr'\. Did you mean 'trainer'"):
        key_help(["trainr"], [CONF_DIR])
    with pytest.raises(ConfigError, match=r"unknown method 'lgs'\. Did you mean 'lsg'"):
        key_help(["method=lgs"], [CONF_DIR])
    with pytest.raises(ConfigError, match="only one value"):
        key_help(["method=lsg,psg"], [CONF_DIR])


def test_the_number_of_gpus_is_not_needed() -> None:
    assert "trainer.accelerator=gpu" in key_help(["trainer=ddp"], [CONF_DIR])


def test_options_that_a_file_outside_gradspike_leaves_out_are_typed_with_a_plus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "half_rule.py").write_text(
        "from gradspike.methods.base import Method\nfrom gradspike.methods.options import MethodConfig\n"
        "class RuleConfig(MethodConfig):\n    slope: float = 2.0\nclass Rule(Method):\n    Config = RuleConfig\n"
    )
    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "half.yaml").write_text("name: half_rule:Rule\nv_threshold: 1.5  # where it fires\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    lines = key_help(["method=half"], [CONF_DIR, tmp_path]).splitlines()
    assert "  +method.slope=2.0  number" in lines
    assert lines[lines.index("  method.v_threshold=1.5  number above 0") + 1] == "      where it fires"


def test_second_columns_continue_below_themselves() -> None:
    text = "  --key  one two three\n  a long command to type   its meaning\nshort\n"
    assert fitted(text, 18).splitlines() == [
        "  --key  one two", "         three", "  a long command", "      to type", "      its meaning", "short",
    ]  # fmt: skip
