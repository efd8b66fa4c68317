"""The command line of `gradspike sweep`. Imports nothing heavy."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, NonNegativeInt, PositiveInt, field_validator

from gradspike.cli.arguments import CONFIG_DIR_USAGE, Command
from gradspike.config.schema import ExperimentConfig
from gradspike.errors import ConfigError
from gradspike.registry import Strict
from gradspike.shown import counted, expanded
from gradspike.training.place import started_together

DRY_RUN = "--dry-run"
CLUSTER_WORKERS = 8

USAGE = (
    """\
Run a W&B sweep file without a server: one process per trial, several at once, resumable at any time.

  gradspike sweep sweeps/quick.yaml workers=2
  gradspike sweep sweeps/quick.yaml --dry-run             print the commands, start nothing
  gradspike sweep sweeps/methods_on_cifar10.yaml gpus=0,1,2,3 data_dir=/data

Arguments:
  workers         number of trials at once             (1; with gpus: as many as fit; with executor=slurm: 8)
  gpus            GPUs to distribute, e.g. 0,1,2,3     (none: trials see what this process sees)
  gpus_per_trial  number of GPUs per trial (DDP); sets trainer.devices               (trainer.devices)
  retries         number of retries of a failed trial per start of this command                    (1)
  trials          number of trials, for method: random and bayes                             (run_cap)
  sampler_seed    seed of random draws and of the search                                           (0)
  pruner          none | median | hyperband: stop trials whose validation metric falls behind
                                                                                     (early_terminate)
  folder          folder of the sweep                                (runs/sweeps/<name of the file>)
  storage         the study: sqlite:///... or postgresql://user:password@host/name, shared by several
                  machines                                                       (study.db in folder)
  executor        local | slurm                                                               (local)
  slurm.<name>    an option of submitit, e.g. slurm.partition=gpu slurm.timeout_min=600
  key=value       any other key, passed to all trials, e.g. data_dir=/data trainer.max_epochs=5
  --dry-run       only print the commands of the trials
"""
    + CONFIG_DIR_USAGE
    + """
The same command continues an interrupted sweep: it skips finished trials, resumes interrupted ones and retries failed
ones. On Ctrl-C the trials save before they stop. See docs/sweeps.md.
"""
)


class SweepArguments(Strict):
    """The command's own options."""

    workers: PositiveInt | None = None
    gpus: Annotated[tuple[str, ...], BeforeValidator(lambda text: tuple(str(text).split(",")) if text else ())] = ()
    gpus_per_trial: PositiveInt | None = None
    retries: NonNegativeInt = 1
    trials: PositiveInt | None = None
    sampler_seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    pruner: Literal["none", "median", "hyperband"] | None = None
    folder: Annotated[str, Field(min_length=1)] | None = None
    storage: Annotated[str, Field(min_length=1)] | None = None
    executor: Literal["local", "slurm", "submitit-local"] = "local"

    @field_validator("gpus")
    @classmethod
    def _names(cls, gpus: tuple[str, ...]) -> tuple[str, ...]:
        for gpu in gpus:
            if not re.fullmatch(r"[\w-]+", gpu):
                raise ValueError("write GPU numbers separated by commas, e.g. 0,1,2,3")
        if len(set(gpus)) < len(gpus):
            raise ValueError("a GPU appears twice")
        return gpus

    def workers_for(self, configs: Sequence[ExperimentConfig]) -> int:
        """The number of trials at once. Raises ConfigError if there are too few GPUs for them."""
        needed = max(config.trainer.devices for config in configs)
        if not self.gpus:
            return self.workers or (CLUSTER_WORKERS if self.executor != "local" else 1)
        most = len(self.gpus) // needed
        if most == 0:
            raise ConfigError(f"gpus={','.join(self.gpus)}: a trial of this sweep needs {counted(needed, 'GPU')}.")
        if self.workers is not None and self.workers > most:
            raise ConfigError(
                f"workers={self.workers}: with {counted(len(self.gpus), 'GPU')} only {counted(most, 'trial')} can run "
                "at once."
            )
        return self.workers or most


@dataclass(frozen=True)
class CommandLine:
    """A parsed command line."""

    file: Path
    options: SweepArguments
    slurm: tuple[tuple[str, str], ...]
    """Options of submitit and their values, in the typed order."""
    typed: tuple[str, ...]
    """Overrides for every trial."""
    config_dir: str | None
    dry_run: bool


COMMAND = Command("sweep", USAGE, keys=SweepArguments, switches=(DRY_RUN,), trains=True, words=True)


def parse(arguments: Sequence[str]) -> CommandLine:
    """Parse the command line. Raises ConfigError for mistakes that can be found without the sweep file."""
    line = COMMAND.parse(arguments)
    options: SweepArguments = line.options
    slurm, typed = [], []
    for word in line.overrides:
        key, _, value = word.partition("=")
        if key.startswith("slurm."):
            slurm.append((key.removeprefix("slurm."), value))
        else:
            typed.append(word)
    if len(line.words) != 1:
        what = f"{', '.join(line.words)}: name one sweep file" if line.words else "Name one sweep file"
        raise COMMAND.error(f"{what}, as in  gradspike sweep sweeps/quick.yaml")
    if options.executor == "local" and slurm:
        raise ConfigError(f"slurm.{slurm[0][0]}: add executor=slurm")
    if options.executor != "local" and options.gpus:
        raise ConfigError("gpus: the cluster assigns the GPUs; use gpus_per_trial=1")
    if options.gpus_per_trial is not None:
        typed.append(f"trainer.devices={options.gpus_per_trial}")
    _check_tasks(options)
    file = expanded(line.words[0])
    return CommandLine(file, options, tuple(slurm), tuple(typed), line.config_dir, DRY_RUN in line.flags)


def _check_tasks(options: SweepArguments) -> None:
    """Each task of srun runs this command, and they share its trials. Raises ConfigError for what they cannot share."""
    tasks = started_together()
    if tasks > 1 and options.gpus:
        raise ConfigError(
            f"gpus={','.join(options.gpus)}: each of the {tasks} tasks would hand out the same GPUs. Give each its "
            "own (srun --gpus-per-task=1) and leave gpus out, or start the sweep once, without srun."
        )
    if tasks > 1 and options.executor != "local":
        raise ConfigError(
            f"executor={options.executor} submits jobs by itself, and {tasks} tasks would submit each for itself. "
            "Start the sweep once, without srun."
        )
