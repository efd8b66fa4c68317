"""`gradspike train resume=RUN key=value ...`: what was typed beside `resume`, on top of the run's own configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from gradspike.config.compose import (
    GROUPS,
    check_groups,
    comma_hint,
    compose_plain,
    options_of,
    settle,
    to_plain,
    unknown_key,
)
from gradspike.config.schema import ExperimentConfig
from gradspike.config.text import doubts
from gradspike.config.validate import PLUGGABLE, validate
from gradspike.errors import ConfigError
from gradspike.nested import flat
from gradspike.runs.folder import RunFolder
from gradspike.runs.newest import AUTO
from gradspike.runs.resume import check_parts, resumed_config

KEY = "resume"


def resumed_path(words: Sequence[str], folders: list[Path]) -> str | None:
    """The run that the overrides name, or None, also for `resume=auto`. Raises ConfigError unless it is one path."""
    found = None
    for word in words:
        if word.partition("=")[0].lstrip("+") != KEY:
            continue
        (override,) = check_groups(settle([word], folders)[0], folders)
        if override.is_sweep_override():
            raise ConfigError(f"{word}: resume one run at a time.{comma_hint(override)}")
        found = _plain_value(override)
    return str(found) if found not in (None, AUTO) else None


def requested_config(
    path: str, words: Sequence[str], folders: list[Path], config_name: str = "config"
) -> tuple[ExperimentConfig, list[str]]:
    """The configuration of a run with the overrides, and the overrides as they were read.

    Raises ConfigError for what the run's own parts do not have, and for what may not change on resume.
    """
    run = RunFolder.open(path)
    plain = run.config().plain()
    words = [word for word in words if not word.startswith("hydra")]
    groups = [word for word in words if _key(word) in GROUPS]
    if removed := next((word for word in groups if word.startswith("~")), None):
        raise ConfigError(f"{removed}: a resumed run keeps its {_key(removed)}; leave it out.")
    for section, options in _chosen(groups, plain, folders, config_name).items():
        plain[section] = options
    settled = _settled(words, plain)
    for override in check_groups(settled, folders):
        if override.is_sweep_override():
            raise ConfigError(
                f"{override.input_line}: a resumed run takes one value, not several.{comma_hint(override)}"
            )
        if override.key_or_group not in (*GROUPS, KEY):
            _apply(plain, override)
    check_parts(run, plain)  # validation would advise another batch size, which a resumed run keeps
    # A logger that the run did not have takes W&B's variables, as in a new run.
    requested = validate({**plain, KEY: path}, recorded=not any(_key(word) == "logger" for word in groups))
    resumed_config(run, requested, settled)
    return requested, settled


def printed(config: ExperimentConfig, package: str | None) -> str:
    """The configuration, or the part of it that `--package` names, as YAML."""
    part: Any = OmegaConf.create({"all": _escaped(config.plain())})["all"]
    for key in package.split(".") if package else ():
        if not OmegaConf.is_dict(part) or key not in part:
            raise ConfigError(f"--package {package}: the configuration has no such part.")
        part = part[key]
    return OmegaConf.to_yaml(part) if OmegaConf.is_config(part) else f"{part}\n"


def _key(word: str) -> str:
    return word.partition("=")[0].lstrip("+~")


def _settled(words: Sequence[str], plain: Mapping[str, Any]) -> list[str]:
    """The overrides, with quotes where the run's own parts want text that Hydra's grammar would read otherwise."""
    found = doubts(words)
    return [found[place].settled(GROUPS, plain) if place in found else word for place, word in enumerate(words)]


def _chosen(
    groups: Sequence[str], plain: Mapping[str, Any], folders: list[Path], config_name: str
) -> dict[str, dict[str, Any]]:
    """The sections of groups that were typed, with the run's own choices and recipe where none was typed."""
    if not groups:
        return {}
    check_groups(list(groups), folders)
    typed = {_key(word) for word in groups}
    own = [f"{group}={option}" for group in PLUGGABLE if group not in typed and (option := _own(group, plain, folders))]
    recipe = (plain.get("recipe") or {}).get("name")
    used = recipe if recipe in options_of("recipe", folders) else "none"
    recipe_word = [] if "recipe" in typed else [f"recipe={used}"]
    try:
        composed = compose_plain([*own, *groups, *recipe_word], folders, config_name)
    except ConfigError:  # the recipe would win over a typed group, which is compared with the run as it is
        composed = compose_plain([*own, *(word for word in groups if _key(word) != "recipe"), "recipe=none"], folders)
    return {group: composed[group] for group in typed}


def _own(group: str, plain: Mapping[str, Any], folders: list[Path]) -> str | None:
    """The option of a group that a run was started with, as far as its configuration says."""
    section = plain[group]
    names = [section.get(key) for key in ("label", "library", "name")]
    return next((name for name in names if name in options_of(group, folders)), None)


def _apply(plain: dict[str, Any], override: Any) -> None:
    """Set, add or delete one key. Raises ConfigError for a key that the run's configuration does not have."""
    key: str = override.key_or_group
    *path, last = key.split(".")
    section: Any = plain
    for part in path:
        section = section.get(part) if isinstance(section, dict) else None
    adds = override.is_add() or override.is_force_add()
    if not isinstance(section, dict) or (last not in section and not adds):
        raise ConfigError(unknown_key(key, {known for known, _ in flat(plain, sections=True)}))
    if override.is_delete():
        del section[last]
        return
    value = _plain_value(override)
    if isinstance(value, dict) and isinstance(section.get(last), dict):
        value = {**section[last], **value}
    section[last] = value


def _plain_value(override: Any) -> Any:
    """The value of an override, with OmegaConf's interpolations and escapes resolved."""
    return to_plain(OmegaConf.create({"value": override.value()}))["value"]


def _escaped(value: Any) -> Any:
    """`value` with texts that OmegaConf does not take for interpolations."""
    if isinstance(value, dict):
        return {key: _escaped(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_escaped(inner) for inner in value]
    return value.replace("${", "\\${") if isinstance(value, str) else value
