"""W&B's environment variables, checked with W&B's own settings before a run has a folder.

W&B refuses a wrong one only when it starts; the training would then continue without W&B.
"""

from __future__ import annotations

import os

from gradspike.errors import ConfigError, first_line
from gradspike.variables import variable

PREFIX = "WANDB_"
OTHER_NAMES = {"http_timeout": "x_graphql_timeout_seconds", "file_pusher_timeout": "x_file_transfer_timeout_seconds"}
"""Settings whose variables have other names; those of `config.wandb_options` are checked there."""
NOT_OURS = ("WANDB_FORK_FROM", "WANDB_RESUME_FROM")
SECRET = "WANDB_API_KEY"


def check_environment() -> None:
    """Raise ConfigError for the first variable that W&B would refuse. Imports wandb."""
    import wandb

    for name in sorted(os.environ):
        value = variable(name)
        if value is None or not name.startswith(PREFIX) or name == SECRET:
            continue
        if name in NOT_OURS:
            raise ConfigError(
                f"The environment variable {name}={value} does not fit: a run continues its own W&B run. Unset it."
            )
        setting = name.removeprefix(PREFIX).lower()
        setting = OTHER_NAMES.get(setting, f"x{setting}" if setting.startswith("_") else setting)
        if setting not in wandb.Settings.model_fields:
            continue
        try:
            wandb.Settings(**{setting: value})
        except Exception as error:  # W&B has errors of its own besides pydantic's
            raise ConfigError(f"The environment variable {name}={value}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    from pydantic import ValidationError

    if isinstance(error, ValidationError):
        return str(error.errors()[0]["msg"])
    return first_line(error)
