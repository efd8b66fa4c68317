"""W&B's environment variables, checked with W&B's own settings before a run has a folder.

W&B refuses a wrong one only when it starts; the training would then continue without W&B.
"""

from __future__ import annotations

import configparser
import os
from pathlib import Path

from gradspike.config.wandb_options import UNTYPED, WandbConfig, split_tags
from gradspike.errors import ConfigError, first_line
from gradspike.shown import listed
from gradspike.variables import unset_empty, variable

PREFIX = "WANDB_"
OTHER_NAMES = {"http_timeout": "x_graphql_timeout_seconds", "file_pusher_timeout": "x_file_transfer_timeout_seconds"}
"""Settings whose variables have other names; those of `config.wandb_options` are checked there."""
TAGS = "WANDB_TAGS"
NOT_OURS = ("WANDB_FORK_FROM", "WANDB_RESUME_FROM")
SECRET = "WANDB_API_KEY"


def tidy_environment() -> None:
    """Remove empty variables, empty tags and spaces around values. W&B reads the variables itself and refuses these."""
    unset_empty()
    for name in _names():
        os.environ[name] = os.environ[name].strip()
    if tags := split_tags(os.environ.pop(TAGS, "")):
        os.environ[TAGS] = ",".join(tags)


def check_environment() -> None:
    """Tidy the variables; raise ConfigError for the first one that W&B would refuse. Imports wandb."""
    import wandb

    tidy_environment()
    for name in UNTYPED.keys() & os.environ.keys():
        try:
            UNTYPED[name](os.environ[name])
        except ValueError as error:
            raise ConfigError(f"The environment variable {name}={os.environ[name]}: {error}") from error
    for name in _names():
        value = os.environ[name]
        if name == SECRET:
            continue
        if name in NOT_OURS:
            raise ConfigError(
                f"The environment variable {name}={value} cannot be used, because a run continues its own W&B run. "
                "Unset it."
            )
        setting = name.removeprefix(PREFIX).lower()
        setting = OTHER_NAMES.get(setting, f"x{setting}" if setting.startswith("_") else setting)
        if setting not in wandb.Settings.model_fields:
            continue
        try:
            wandb.Settings(**{setting: value})
        except Exception as error:  # W&B has errors of its own besides pydantic's
            raise ConfigError(f"The environment variable {name}={value}: {_reason(error)}") from error


def check_settings_file(options: WandbConfig) -> None:
    """Raise ConfigError if W&B would take from its settings file in the working folder what no run records.

    `wandb init` writes this file. W&B reads it at the start of a run, whatever wrote it; its project and mode have no
    effect, because a run always gives both.
    """
    file = Path(".wandb" if Path(".wandb").exists() else "wandb", "settings")
    content = configparser.ConfigParser(interpolation=None)
    try:
        content.read(file, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError):
        return  # W&B reports it, and reads nothing from it
    given = {"project", "mode"} | ({"entity"} if options.entity is not None else set())
    taken = {
        name: "***" if "key" in name else value
        for name, value in (content.items("default") if content.has_section("default") else ())
        if name not in given and variable(f"{PREFIX}{name.upper()}") is None
    }
    if taken:
        words = " ".join(f"logger.{name}={value}" for name, value in taken.items() if name == "entity")
        variables = " ".join(f"{PREFIX}{name.upper()}={value}" for name, value in taken.items() if name != "entity")
        read = listed(f"{name}={value}" for name, value in taken.items())
        raise ConfigError(
            f"{file}: W&B would read {read} from this file, which the run does not record. Type "
            f"{' and '.join(filter(None, [words, variables]))}, or remove the file."
        )


def _names() -> list[str]:
    return sorted(name for name in os.environ if name.startswith(PREFIX))


def _reason(error: Exception) -> str:
    from pydantic import ValidationError

    if isinstance(error, ValidationError):
        return str(error.errors()[0]["msg"])
    return first_line(error)
