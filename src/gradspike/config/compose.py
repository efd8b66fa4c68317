"""Compose the configuration with Hydra, for every command; a mistyped group or key gets its nearest match."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from gradspike.config.recipes import check_choices
from gradspike.config.schema import ExperimentConfig
from gradspike.config.validate import validate
from gradspike.errors import ConfigError, did_you_mean
from gradspike.nested import flat

CONF_DIR = (Path(__file__).parents[1] / "conf").resolve()
GROUPS = ("dataset", "model", "method", "neuron", "loss", "optimizer", "scheduler", "trainer", "logger", "recipe")


def options_of(group: str, config_dirs: list[Path]) -> list[str]:
    """Names of the YAML files of a Hydra group."""
    return sorted({file.stem for folder in config_dirs for file in (folder / group).glob("*.yaml")})


def to_plain(raw: DictConfig) -> dict[str, Any]:
    """An OmegaConf configuration as plain containers, interpolations resolved, or ConfigError where one cannot be."""
    try:
        plain = OmegaConf.to_container(raw, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"The configuration cannot be resolved: {str(error).splitlines()[0]}") from error
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def load_config(words: list[str], config_dir: str | None = None) -> ExperimentConfig:
    """The validated configuration of a list of overrides. Raises ConfigError."""
    config_dirs = _config_dirs(config_dir)
    sweeps = [override for override in check_groups(words, config_dirs) if override.is_sweep_override()]
    if sweeps:
        raise ConfigError(f"{sweeps[0].input_line}: one value, not several.")
    return validate(_compose(words, config_dirs, "config"))


def check_groups(words: list[str], config_dirs: list[Path]) -> list[Any]:
    """Parse overrides and check the options of config groups. Returns Hydra's parsed overrides; raises ConfigError."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import ValueType
    from hydra.errors import HydraException

    overrides = []
    for word in words:
        try:
            overrides += OverridesParser.create().parse_overrides([word])
        except HydraException as error:
            hint = " Write key=value."
            if "={" in word:
                hint = " Names in a dictionary stand without quotes: '+key={name:value}'."
            elif "=" in word:
                hint = " Put quotes around a value with special characters: 'key=\"value\"'."
            raise ConfigError(f"{word}: cannot be read.{hint}") from error
    for override in overrides:
        group = override.key_or_group
        allowed = options_of(group, config_dirs)
        if not allowed or override.is_delete():
            continue
        listed = (ValueType.SIMPLE_CHOICE_SWEEP, ValueType.CHOICE_SWEEP)
        if override.is_sweep_override() and override.value_type not in listed:
            raise ConfigError(f"{override.input_line}: list the options, as in {group}={','.join(allowed[:2])}")
        for option in _values(override):
            if str(option) not in allowed:
                hint = did_you_mean(str(option), allowed)
                raise ConfigError(f"{group}={option}: there is no such {group}.{hint} Allowed: {', '.join(allowed)}")
    return overrides


def _config_dirs(extra: str | None) -> list[Path]:
    if extra is not None and not Path(extra).is_dir():
        raise ConfigError(f"--config-dir {extra}: there is no such folder.")
    return [CONF_DIR] if extra is None else [CONF_DIR, Path(extra).resolve()]


def _values(override: Any) -> list[Any]:
    """The value of an override, or each value of a sweep over a list."""
    if override.is_discrete_sweep():
        return [value.partition("=")[2] or value for value in override.sweep_string_iterator()]
    value = override.value()
    return value if isinstance(value, list) else [value]


def _compose(words: list[str], config_dirs: list[Path], config_name: str) -> dict[str, Any]:
    """Compose one configuration. Raises ConfigError that names the unknown key and the nearest one."""
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException

    search_path = (
        [f"hydra.searchpath=[{','.join(f'file://{folder}' for folder in config_dirs[1:])}]"] if config_dirs[1:] else []
    )
    with initialize_config_dir(config_dir=str(config_dirs[0]), version_base="1.3"):
        try:
            composed = to_plain(compose(config_name, overrides=[*search_path, *words]))
        except (HydraException, OmegaConfBaseException) as error:
            groups = [word for word in words if word.lstrip("+").partition("=")[0] in GROUPS]
            try:
                defaults = to_plain(compose(config_name, overrides=[*search_path, *groups]))
                known = sorted(key for key, _ in flat(defaults, sections=True))
            except (HydraException, OmegaConfBaseException):
                known = []
            for word in words:
                key = word.partition("=")[0]
                if known and not key.startswith(("+", "~", "hydra")) and key not in known and key not in GROUPS:
                    parent = key.rpartition(".")[0]
                    siblings = [word for word in known if parent and word.rpartition(".")[0] == parent]
                    allowed = f" Allowed: {', '.join(siblings)}" if siblings else ""
                    raise ConfigError(
                        f"{key}: there is no such key.{did_you_mean(key, [*known, *GROUPS])}{allowed}"
                    ) from error
            plus = " New keys of a dictionary want a plus: '+key={name:value}'."
            reason = str(error).splitlines()[0]
            raise ConfigError(reason + (plus if any("={" in word for word in words) else "")) from error
    check_choices(words, composed, config_dirs)
    return composed
