"""Where a run takes its first weights from (`init_from`). Imports nothing heavy."""

from __future__ import annotations

from pathlib import Path

from gradspike.config.schema import ExperimentConfig
from gradspike.errors import ConfigError, unknown_path
from gradspike.runs.folder import RunFolder

KEY = "init_from"


def start_file(config: ExperimentConfig) -> Path | None:
    """The file of weights that `init_from` names: best.ckpt of a run folder, or the file itself; None without.

    Raises ConfigError if there is no such file, or the network takes weights from somewhere else too; UserError if the
    run has no best.ckpt.
    """
    if config.init_from is None:
        return None
    if getattr(config.model, "pretrained", None) is not None:
        raise ConfigError(f"{KEY} and model.pretrained cannot be combined: both give the first weights.")
    path = Path(config.init_from)
    if path.is_dir():
        return RunFolder.open(config.init_from).checkpoint("best")
    if not path.is_file():
        raise ConfigError(f"{KEY}: {unknown_path('run, checkpoint or file of weights', path)}")
    return path
