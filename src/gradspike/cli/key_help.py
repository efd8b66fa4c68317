"""Every key of chosen parts of the configuration: value, type and range or choices, meaning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from gradspike.cli.columns import columns, wrapped
from gradspike.config.allowed import allowed
from gradspike.config.compose import CONF_DIR, GROUPS, compose_one
from gradspike.config.meanings import meanings
from gradspike.config.schema import ExperimentConfig
from gradspike.config.validate import section_class, shown_value
from gradspike.errors import ConfigError, unknown
from gradspike.registry import Strict
from gradspike.touches import option_classes

SECTIONS = tuple(name for name in (*GROUPS, "checkpoint", "probe") if name != "recipe")
PART = "the part, by its name; methods, neurons and other parts may be your own: my_file:MyClass"
GENERAL = tuple(name for name in ExperimentConfig.model_fields if name not in (*SECTIONS, "recipe"))


def key_help(words: Sequence[str], folders: list[Path]) -> str:
    """The keys of each section that `words` choose (`method=lsg`) or name (`trainer`), with the values that these words
    give them. Raises ConfigError.
    """
    named = [word for word in words if "=" not in word and not word.startswith("-")]
    if wrong := next((name for name in named if name not in SECTIONS), None):
        raise ConfigError(unknown("section", wrong, SECTIONS))
    typed = [word for word in words if "=" in word]
    # The number of GPUs is known only to torch, and need not be one here.
    gpus = ["trainer.devices=1"] if any(word.startswith("trainer=ddp") for word in typed) else []
    plain = compose_one([*gpus, *typed], folders)
    chosen = {word.lstrip("+~").partition("=")[0].partition(".")[0] for word in typed} | set(named)
    choices = {word.partition("=")[0]: word.partition("=")[2] for word in typed}
    lines = _general(plain, CONF_DIR) if chosen & {*GENERAL, "recipe"} else []
    for name in SECTIONS:
        if name in chosen:
            lines += [f"{name}={choices[name]}" if name in choices else name, *_section(name, plain, choices, folders)]
    return "".join(f"{line}\n" for line in lines)


def general_help() -> str:
    """The keys that belong to no group."""
    plain = yaml.safe_load((CONF_DIR / "config.yaml").read_text(encoding="utf-8"))
    lines = _general(plain, CONF_DIR)
    for name in ("checkpoint", "probe"):
        lines += _section(name, plain, {}, [CONF_DIR])
    return "".join(f"{line}\n" for line in lines)


def _general(plain: Mapping[str, Any], folder: Path) -> list[str]:
    known = meanings(folder / "config.yaml")
    return [
        line
        for name in GENERAL
        for line in _entry(name, plain[name], allowed(ExperimentConfig.model_fields[name]), known)
    ]


def _section(name: str, plain: Mapping[str, Any], choices: Mapping[str, str], folders: list[Path]) -> list[str]:
    known = section_meanings(name, choices.get(name) or _default_option(name), folders)
    return list(_entries(f"{name}.", plain[name], section_class(name, plain[name]), known))


def section_meanings(name: str, option: str, folders: list[Path]) -> dict[str, str]:
    """Dotted key -> meaning, of a section with one of its options."""
    known = meanings(CONF_DIR / "config.yaml") | {f"{name}.name": PART}
    for folder in folders:
        if (file := folder / name / f"{option}.yaml").is_file():
            found = meanings(file)
            known |= found | {f"{name}.{key}": text for key, text in found.items()}
    return known


def _default_option(group: str) -> str:
    content = yaml.safe_load((CONF_DIR / "config.yaml").read_text(encoding="utf-8"))
    return next((str(one[group]) for one in content["defaults"] if isinstance(one, dict) and group in one), "")


def _entries(prefix: str, values: Mapping[str, Any], schema: type[Strict], known: Mapping[str, str]) -> Iterator[str]:
    """The keys of an option class. Those that a file of gradspike leaves out are fixed there, or have no effect."""
    for name, field in schema.model_fields.items():
        typed = name in values
        if not typed and ":" not in str(values.get("name")):
            continue
        value = values[name] if typed else field.get_default(call_default_factory=True)
        inner = option_classes(field)
        if inner and isinstance(value, Mapping):
            yield from _entries(f"{prefix}{name}.", value, inner[0], known)  # type: ignore[arg-type]
        else:
            yield from _entry(("" if typed else "+") + prefix + name, value, allowed(field), known)


def _entry(key: str, value: Any, what: str, known: Mapping[str, str]) -> Iterator[str]:
    """`  key=value  what is allowed`, and below it the meaning."""
    width = columns()
    head = f"  {key}={shown_value(value)}"
    yield from wrapped(what, width, f"{head}  ", " " * 6) if len(head) + len(what) + 2 > width else [f"{head}  {what}"]
    if text := known.get(key):
        yield from wrapped(text, width, " " * 6)
