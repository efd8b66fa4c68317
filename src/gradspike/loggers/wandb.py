"""Weights & Biases, in a form that can never stop a training."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from gradspike.config.schema import ExperimentConfig, WandbConfig
from gradspike.loggers.closing import LAYER_COLUMNS, LAYER_TABLE, energies, last_validation, layer_rows
from gradspike.loggers.wandb_login import logged_in
from gradspike.nested import flat
from gradspike.runs.folder import LAYERS, RunFolder

log = logging.getLogger(__name__)

SECONDS_TO_CONNECT = 30


class WandbLogger(Logger):
    """Writes to W&B; any failure of W&B is told once and ends the writing, not the training.

    Offline unless somebody is logged in (or WANDB_MODE or `mode` says otherwise). The W&B run has the id of the run's
    folder, so that a resumed run continues it.
    """

    def __init__(self, config: ExperimentConfig, folder: Path, run_id: str) -> None:
        super().__init__()
        assert isinstance(config.logger, WandbConfig)
        self.config = config
        self.options = config.logger
        self.folder = folder
        self.run_id = run_id
        self._run: Any = None
        self._failed = False

    @property
    def name(self) -> str:
        """The W&B project."""
        return self.options.project

    @property
    def version(self) -> str:
        """The W&B run id."""
        return self.run_id

    @rank_zero_only
    def start(self) -> None:
        """Open the W&B run; online falls back to offline when it cannot connect."""
        import wandb

        mode = os.environ.get("WANDB_MODE") or self.options.mode
        if mode == "auto":
            mode = "online" if logged_in() else "offline"
        for attempt in dict.fromkeys((mode, "offline")):
            try:
                self._run = wandb.init(
                    project=self.options.project,
                    entity=self.options.entity,
                    group=self.options.group or self.config.method_label(),
                    name=self.folder.name,
                    id=self.run_id,
                    resume="allow",
                    tags=self.options.tags or None,
                    dir=str(self.folder),
                    config=self.config.plain(),
                    mode=attempt,  # type: ignore[arg-type]
                    reinit="finish_previous",
                    settings=wandb.Settings(init_timeout=SECONDS_TO_CONNECT, silent=True, console="off"),
                )
                self._run.define_metric("epoch")
                return
            except Exception as error:
                log.warning("W&B (%s) could not start: %s", attempt, error)
        self._failed = True

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """One record, at the optimiser's step."""
        self._attempt(lambda run: run.log(metrics, step=step))

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing to do: `start` hands over the whole configuration."""

    @rank_zero_only
    def close(self, summary: dict[str, Any], failed: bool) -> None:
        """Write the summary (nested keys joined by `/`) and what panels need besides (`reporting.closing`); end the W&B
        run, so that the next one in this process has its own.
        """
        if not failed:
            self._attempt(lambda run: run.summary.update({**dict(flat(summary, "/")), **self._energies()}))
            self._attempt(self._log_layers)
        self._attempt(lambda run: run.finish(exit_code=int(failed)))
        self._run = None

    def _energies(self) -> dict[str, float]:
        layers = json.loads((self.folder / LAYERS).read_text(encoding="utf-8"))
        return energies(layers, self.config.model.activation == "relu")

    def _log_layers(self, run: Any) -> None:
        import wandb

        validation = last_validation(RunFolder(self.folder).metrics)
        if rows := layer_rows(validation, self.config.method_label(), self.config.seed):
            run.log({LAYER_TABLE: wandb.Table(columns=list(LAYER_COLUMNS), data=rows)})

    def _attempt(self, action: Any) -> None:
        if self._run is None or self._failed:
            return
        try:
            action(self._run)
        except Exception as error:
            self._failed = True
            log.warning("W&B stopped working (%s); training goes on and the run's own files are complete.", error)
