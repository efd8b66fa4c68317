"""The loggers of a run, by their names in conf/logger."""

from __future__ import annotations

from collections.abc import Callable

from gradspike.config.schema import ExperimentConfig
from gradspike.loggers.base import RunLogger
from gradspike.runs.folder import RunFolder


def build_logger(config: ExperimentConfig, run: RunFolder) -> RunLogger | None:
    """Build the logger of a configuration; None for `files`, which every run writes anyway."""
    return _LOGGERS[config.logger.name](config, run)


def _wandb(config: ExperimentConfig, run: RunFolder) -> RunLogger:
    from gradspike.loggers.wandb import WandbLogger

    return WandbLogger(config, run)


def _tensorboard(config: ExperimentConfig, run: RunFolder) -> RunLogger:
    from gradspike.loggers.tensorboard import TensorBoard

    return TensorBoard(run.path)


_LOGGERS: dict[str, Callable[[ExperimentConfig, RunFolder], RunLogger | None]] = {
    "files": lambda config, run: None,
    "tensorboard": _tensorboard,
    "wandb": _wandb,
}
