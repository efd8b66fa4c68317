"""Weights & Biases. Errors of W&B never stop a training."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from lightning.pytorch.utilities import rank_zero_only
from typing_extensions import override

from gradspike.config.schema import ExperimentConfig
from gradspike.config.wandb_options import LONGEST, WandbConfig, chosen_folder
from gradspike.loggers.base import RunLogger
from gradspike.loggers.closing import LAYER_COLUMNS, LAYER_TABLE, energies, last_validation, layer_rows
from gradspike.loggers.wandb_connection import Connection
from gradspike.loggers.wandb_environment import tidy_environment
from gradspike.loggers.wandb_login import logged_in
from gradspike.nested import flat
from gradspike.runs.folder import LAYERS, RunFolder
from gradspike.runs.identity import write_wandb_id
from gradspike.runs.probe_records import histogram_edges
from gradspike.runs.wandb_ids import wandb_ids
from gradspike.variables import variable

log = logging.getLogger(__name__)


class WandbLogger(RunLogger):
    """Writes to W&B, and offline when W&B fails; training continues.

    Typed options win over W&B's environment variables, and these over gradspike's defaults. By default it is offline
    unless the user is logged in, and the W&B run has the name and the id of the run, so a resumed run continues it.
    """

    def __init__(self, config: ExperimentConfig, run: RunFolder) -> None:
        super().__init__()
        assert isinstance(config.logger, WandbConfig)
        self.config = config
        self.options = config.logger
        self.folder = run
        self._connection: Connection | None = None

    @property
    @override
    def name(self) -> str:
        return self.options.project

    @property
    @override
    def version(self) -> str:
        return self.folder.id

    @override
    @rank_zero_only
    def start(self) -> None:
        """Open the W&B run, offline if it cannot connect."""
        tidy_environment()
        # A resumed run keeps what it recorded; W&B would read these variables itself.
        for name, kept in (("WANDB_ENTITY", self.options.entity), ("WANDB_TAGS", self.options.tags)):
            if not kept:
                os.environ.pop(name, None)
        given = variable("WANDB_RUN_ID")
        if given is not None and given not in wandb_ids(self.folder.path):
            write_wandb_id(self.folder.path, given)  # W&B's files, which name it, may be elsewhere
        self._connection = Connection({**self._names(), "config": self.config.plain()})
        self._connection.open(self._mode())

    def _mode(self) -> str:
        if self.options.mode != "auto":
            return self.options.mode
        if (given := variable("WANDB_MODE")) is not None:
            return given
        if logged_in():
            return "online"
        log.info("W&B: not logged in, so the run is recorded offline (log in with: wandb login)")
        return "offline"

    def _names(self) -> dict[str, Any]:
        """Where the W&B run goes and what it is called. W&B itself reads some of the variables only once a process."""
        return {
            "project": self.options.project,
            "entity": self.options.entity,
            "group": self.options.group or self.config.method_label()[:LONGEST],
            "name": variable("WANDB_NAME") or self.folder.path.resolve().name[:LONGEST],
            "id": variable("WANDB_RUN_ID") or next(iter(wandb_ids(self.folder.path)), self.folder.id),
            "resume": variable("WANDB_RESUME") or "allow",
            "tags": self.options.tags or None,
            "notes": variable("WANDB_NOTES"),
            "job_type": variable("WANDB_JOB_TYPE"),
            "dir": chosen_folder() or str(self.folder.path),
        }

    @override
    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        self._attempt(lambda run: run.log(dict(metrics), step=step))

    @override
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing to do: `start` sends the whole configuration."""

    @override
    @rank_zero_only
    def log_probe(self, scalars: dict[str, float], histograms: Mapping[str, Sequence[float]], step: int) -> None:
        def log_all(run: Any) -> None:
            import wandb

            shown = {
                name: wandb.Histogram(np_histogram=(np.array(shares), np.array(histogram_edges(len(shares)))))
                for name, shares in histograms.items()
            }
            run.log({**scalars, **shown}, step=step)

        self._attempt(log_all)

    @override
    @rank_zero_only
    def close(self, summary: dict[str, Any] | None) -> None:
        """Write the summary (nested keys joined by `/`) and the data of `loggers.closing`, and end the W&B run."""
        if summary is not None:
            self._attempt(lambda run: run.summary.update({**dict(flat(summary, "/")), **self._energies()}))
            self._attempt(self._log_layers)
        if self._connection is not None:
            self._connection.close(exit_code=int(summary is None))

    def _energies(self) -> dict[str, float]:
        layers = json.loads((self.folder.path / LAYERS).read_text(encoding="utf-8"))
        return energies(layers, self.config.model.activation == "relu")

    def _log_layers(self, run: Any) -> None:
        import wandb

        validation = last_validation(self.folder.metrics)
        if rows := layer_rows(validation, self.config.method_label(), self.config.seed):
            run.log({LAYER_TABLE: wandb.Table(columns=list(LAYER_COLUMNS), data=rows)})

    def _attempt(self, action: Callable[[Any], object]) -> None:
        if self._connection is not None:
            self._connection.attempt(action)
