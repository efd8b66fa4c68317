"""Compose the configuration with Hydra, for all commands. An unknown group or key gets the nearest match."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from gradspike.config.overrides import typed_text
from gradspike.config.recipes import check_choices, drop_foreign_options
from gradspike.config.schema import ExperimentConfig
from gradspike.config.text import doubts
from gradspike.config.validate import validate
from gradspike.data.options.pictures import for_images
from gradspike.errors import ConfigError, causes, did_you_mean, unknown, unknown_path
from gradspike.nested import flat
from gradspike.yaml_text import check_words

CONF_DIR = (Path(__file__).parents[1] / "conf").resolve()
GROUPS = (
    "dataset",
    "model",
    "method",
    "neuron",
    "norm",
    "loss",
    "optimizer",
    "scheduler",
    "trainer",
    "logger",
    "recipe",
)

NAMING = ("~method", "~dataset", "~model")
"""Removals of the groups in the name of a recipe, which Hydra could not resolve."""


@cache
def visible_gpus() -> int:
    """The number of CUDA devices, for `trainer=ddp`. Imports torch, which knows. Raises ConfigError if it is 0."""
    import torch

    count = torch.cuda.device_count()
    if not count:
        raise ConfigError(
            "trainer=ddp: no GPU is visible here. trainer=ddp_cpu uses the CPU, trainer.devices=N a fixed number."
        )
    return count


OmegaConf.register_new_resolver("visible_gpus", visible_gpus, replace=True)


def options_of(group: str, folders: list[Path]) -> list[str]:
    """The options of a Hydra group: the names of its YAML files."""
    return sorted({file.stem for folder in folders for file in (folder / group).glob("*.yaml")})


def to_plain(raw: DictConfig) -> dict[str, Any]:
    """An OmegaConf configuration as plain containers. Raises ConfigError if an interpolation cannot be resolved."""
    try:
        plain = OmegaConf.to_container(raw, resolve=True)
    except OmegaConfBaseException as error:
        for cause in causes(error):  # OmegaConf wraps what a resolver raises
            if isinstance(cause, ConfigError):
                raise cause from None
        raise ConfigError(f"The configuration cannot be resolved: {str(error).splitlines()[0]}") from error
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def load_config(words: list[str], config_dir: str | None = None) -> ExperimentConfig:
    """Compose and validate the configuration of a list of overrides. Raises ConfigError."""
    folders = config_dirs(config_dir)
    return validate(compose_one(words, folders))


def compose_one(words: Sequence[str], folders: list[Path]) -> dict[str, Any]:
    """Compose the one configuration of a list of overrides. Raises ConfigError, also for several values of a key."""
    settled, composed = settle(words, folders)
    sweeps = [override for override in check_groups(settled, folders) if override.is_sweep_override()]
    if sweeps:
        raise ConfigError(f"{sweeps[0].input_line}: only one value is allowed.{comma_hint(sweeps[0])}")
    return composed or compose_plain(settled, folders)


def settle(
    words: Sequence[str], folders: list[Path], config_name: str = "config"
) -> tuple[list[str], dict[str, Any] | None]:
    """Quote the overrides whose key holds text that Hydra would read differently; without the group that a recipe is
    named after, use none.

    The keys of a method, model or data set are known only after composing. Returns the overrides, and the composed
    configuration if it was needed and belongs to exactly these overrides.
    """
    if any(word in NAMING for word in words) and not any(word.partition("=")[0] == "recipe" for word in words):
        words = [*words, "recipe=none"]
    found = doubts(words)
    settled = [found[place].settled(GROUPS) if place in found else word for place, word in enumerate(words)]
    if not any(doubt.pluggable for doubt in found.values()):
        return settled, None
    unreadable = {place for place, doubt in found.items() if not doubt.readable and settled[place] == words[place]}
    others = [word for place, word in enumerate(settled) if place not in unreadable]
    single = [word for override in check_groups(others, folders) for word in _single(override)]
    composed = compose_plain(single, folders, config_name)
    for place, doubt in found.items():
        if doubt.pluggable:
            settled[place] = doubt.settled(GROUPS, composed)
    return settled, composed if settled == single else None


def _single(override: Any) -> list[str]:
    """One override as words: of a sweep over a group its first option, of any other sweep nothing."""
    if not override.is_sweep_override():
        return [override.input_line]
    return [f"{override.key_or_group}={_values(override)[0]}"] if override.key_or_group in GROUPS else []


def check_groups(words: list[str], folders: list[Path]) -> list[Any]:
    """Parse overrides and check the options of config groups. Returns Hydra's parsed overrides; raises ConfigError."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import ValueType
    from hydra.errors import HydraException

    overrides = []
    for word in words:
        if word.startswith("="):
            raise ConfigError(f"{word}: has no key. Write key=value.")
        try:
            overrides += OverridesParser.create().parse_overrides([word])
        except HydraException as error:
            _check_key(word, [other for other in words if other != word], folders)
            hint = " Write key=value."
            group, _, text = word.partition("=")
            if text in options_of(group, folders):
                hint = f" Quote it: {typed_text(word)}"
            elif text.startswith("{"):
                hint = " Write names in a dictionary without quotes: '+key={name:value}'."
            elif "=" in word:
                hint = f" If its value is text, quote it: {typed_text(word)}"
                if "=[" in word and word.endswith("]"):
                    hint = f' In a list, quote each text, as in \'["a b","c"]\'.{hint}'
            raise ConfigError(f"{word}: cannot be read.{hint}") from error
    for override in overrides:
        group = override.key_or_group
        allowed = options_of(group, folders)
        if not allowed or override.is_delete():
            continue
        listed = (ValueType.SIMPLE_CHOICE_SWEEP, ValueType.CHOICE_SWEEP)
        if override.is_sweep_override() and override.value_type not in listed:
            raise ConfigError(f"{override.input_line}: list the options, as in {group}={','.join(allowed[:2])}")
        for option in _values(override):
            if str(option) not in allowed or option is None:
                if (word := str(override.input_line)).partition("=")[2] in allowed:
                    raise ConfigError(f"{word}: is not read as the option of that name. Quote it: {typed_text(word)}")
                raise ConfigError(unknown(group, "null" if option is None else str(option), allowed))
    return overrides


def comma_hint(sweep: Any) -> str:
    """How to type the words of a sweep as one text, with a leading space; empty for numbers and options of groups.

    sweep: Hydra's parsed override.
    """
    from hydra.core.override_parser.types import ValueType

    values = sweep.value().list if sweep.value_type == ValueType.SIMPLE_CHOICE_SWEEP else []
    if sweep.key_or_group in GROUPS or all(isinstance(value, int | float) for value in values):
        return ""
    return f" If the comma is part of the value, quote it: {typed_text(sweep.input_line)}"


def config_dirs(extra: str | None) -> list[Path]:
    """The folders of options: the package's and the user's. Raises ConfigError.

    Of two files with the same name the package's is used, so the user's must not differ from it.
    """
    if extra is None:
        return [CONF_DIR]
    folder = Path(extra)
    if not folder.is_dir():
        raise ConfigError(f"--config-dir: {unknown_path('folder', folder)}")
    for file in sorted(_yaml_files(folder)):
        ours = CONF_DIR / file.relative_to(folder)
        if ours.is_file() and ours.read_bytes() != file.read_bytes():
            raise ConfigError(f"{file}: gradspike has an option of this name and would use its own. Rename yours.")
        try:
            check_words(file.read_text(encoding="utf-8"), times=False)
        except (OSError, UnicodeDecodeError, yaml.YAMLError, ConfigError) as error:
            raise ConfigError(f"{file}: cannot be read as YAML: {' '.join(str(error).split())}") from error
    return [CONF_DIR, folder.resolve()]


def _yaml_files(folder: Path) -> Iterator[Path]:
    """All YAML files below a folder. Raises the error of a folder that cannot be read, which `rglob` leaves out."""

    def fail(error: OSError) -> None:
        raise error

    for place, _, names in os.walk(folder, onerror=fail):
        yield from (Path(place, name) for name in names if name.endswith(".yaml"))


@contextmanager
def _hydra(folders: list[Path]) -> Iterator[None]:
    """Hydra with the search path of --config-dir, which needs no folder names in overrides."""
    from hydra import version
    from hydra._internal.hydra import Hydra
    from hydra._internal.utils import create_config_search_path
    from hydra.core.config_search_path import SearchPathQuery
    from hydra.core.global_hydra import GlobalHydra

    version.setbase("1.3")
    search_path = create_config_search_path(f"file://{folders[0]}")
    for folder in folders[1:]:
        search_path.prepend("command-line", f"file://{folder}", SearchPathQuery(provider="schema"))
    instance = GlobalHydra.instance()
    before = instance.hydra
    instance.clear()
    Hydra.create_main_hydra2(task_name="gradspike", config_search_path=search_path)
    try:
        yield
    finally:
        instance.hydra = before


def _values(override: Any) -> list[Any]:
    """The value of an override, or each value of a sweep over a list."""
    if override.is_discrete_sweep():
        return [value.partition("=")[2] or value for value in override.sweep_string_iterator()]
    value = override.value()
    return value if isinstance(value, list) else [value]


def compose_plain(words: list[str], folders: list[Path], config_name: str = "config") -> dict[str, Any]:
    """Compose one configuration. Raises ConfigError, for an unknown key with the nearest match."""
    from hydra import compose
    from hydra.errors import HydraException

    with _hydra(folders):
        try:
            composed = to_plain(compose(config_name, overrides=words))
        except (HydraException, OmegaConfBaseException) as error:
            for word in words:
                if word.startswith("+") and word[1:].partition("=")[0] in GROUPS:
                    raise ConfigError(f"{word}: write {word[1:]}, without the plus.") from error
            known = _known_keys(words, config_name)
            for word in words if known else ():
                if _is_unknown(key := word.partition("=")[0], known):
                    raise ConfigError(unknown_key(key, known)) from error
            plus = " New keys of a dictionary need a plus: '+key={name:value}'."
            reason = str(error).splitlines()[0]
            raise ConfigError(reason + (plus if any("={" in word for word in words) else "")) from error
    check_choices(words, composed, folders)
    drop_foreign_options(words, composed, folders)
    return composed


def _check_key(word: str, others: list[str], folders: list[Path]) -> None:
    """Raise ConfigError if the key of `word`, which Hydra cannot read, is none of the configuration of `others`."""
    key, equals, _ = word.partition("=")
    if not equals:
        return
    with _hydra(folders):
        known = _known_keys(others, "config") or _known_keys([], "config")
    if known and _is_unknown(key, known):
        raise ConfigError(unknown_key(key, known))


def _known_keys(words: list[str], config_name: str) -> set[str]:
    """The keys of the configuration with the groups in `words`; empty if it cannot be composed. Needs `_hydra`."""
    from hydra import compose
    from hydra.errors import HydraException

    groups = [word for word in words if word.lstrip("+").partition("=")[0] in GROUPS]
    try:
        defaults = to_plain(compose(config_name, overrides=groups))
    except (HydraException, OmegaConfBaseException):
        return set()
    return {key for key, _ in flat(defaults, sections=True)}


def _is_unknown(key: str, known: set[str]) -> bool:
    return not key.startswith(("+", "~", "hydra")) and key not in known and key not in GROUPS


def unknown_key(key: str, known: set[str]) -> str:
    """The sentence for a key that is not among `known`, with the nearest one and those beside it."""
    parent = key.rpartition(".")[0]
    siblings = sorted(one for one in known if parent and one.rpartition(".")[0] == parent)
    allowed = f" Allowed: {', '.join(siblings)}" if siblings else ""
    if for_images(key):
        return f"unknown key '{key}'. {for_images(key)}{allowed}"
    return f"unknown key '{key}'.{did_you_mean(key, [*known, *GROUPS])}{allowed}"
