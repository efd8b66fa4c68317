"""`gradspike sweep`: options, order of work, exit codes. Imports nothing heavy before every mistake is told."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, NonNegativeInt, PositiveInt, ValidationError, field_validator

from gradspike.cli.arguments import take_flags
from gradspike.config.overrides import override
from gradspike.config.schema import ExperimentConfig
from gradspike.config.validate import explain
from gradspike.errors import ConfigError, did_you_mean
from gradspike.registry import Strict
from gradspike.runs.files import write_atomically
from gradspike.started import typed_command
from gradspike.tools.sweep import file as sweep_file
from gradspike.tools.sweep.file import SweepFile
from gradspike.tools.sweep.folder import SweepFolder, shown
from gradspike.tools.sweep.proposals import Proposal, check_all, proposals, swept_parameters
from gradspike.tools.sweep.words import Words, build

if TYPE_CHECKING:
    from gradspike.tools.sweep.study import Study

SHOWN_PROPOSALS = 10
CLUSTER_WORKERS = 8

USAGE = """\
Run a W&B sweep file without a server: one fresh process a trial, several at once, resumable at any moment.

  gradspike sweep sweeps/quick.yaml workers=2
  gradspike sweep sweeps/quick.yaml --dry-run             print the commands, start nothing
  gradspike sweep sweeps/methods_on_cifar10.yaml gpus=0,1,2,3 data_dir=/data

  workers         trials at once                               (1; with gpus: as many as they suffice for; slurm: 8)
  gpus            GPUs to hand out, as 0,1,2,3                 (none: trials see what this process sees)
  gpus_per_trial  GPUs that train one trial together (DDP); sets trainer.devices                     (trainer.devices)
  retries         how often a trial that fails is tried again, at each start of this command                       (1)
  trials          how many, for method: random and bayes                                                (run_cap)
  sampler_seed    seed of random draws and of the search                                                        (0)
  pruner          none | median | hyperband: stop trials whose validation metric falls behind (early_terminate)
  folder          the sweep's folder                                                        (runs/sweeps/<file's name>)
  storage         the study: sqlite:///... or postgresql://user:password@host/name, shared by several machines
                                                                                                 (study.db in folder)
  executor        local | slurm                                                                               (local)
  slurm.<name>    an option of submitit, as slurm.partition=gpu slurm.timeout_min=600
  key=value       any other key goes to every trial, as data_dir=/data trainer.max_epochs=5

The same command again goes on where it stopped: what is done is skipped, what was under way is resumed, what failed is
tried again. Ctrl-C lets the trials save first. docs/sweeps.md has more.
"""


class SweepArguments(Strict):
    """Arguments of gradspike sweep."""

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
                raise ValueError("write the GPUs' numbers with commas between them, as 0,1,2,3")
        if len(set(gpus)) < len(gpus):
            raise ValueError("a GPU stands twice")
        return gpus


def sweep(arguments: list[str]) -> int:
    """Run a sweep, or print its commands. Returns the exit code."""
    if any(word in ("-h", "--help") for word in arguments):
        print(USAGE, end="")
        return 0
    path, options, slurm, typed, dry_run = parse(arguments)
    file = sweep_file.read(path)
    if options.gpus_per_trial is not None:
        typed = [*typed, f"trainer.devices={options.gpus_per_trial}"]
    words = build(file, typed)
    listed = proposals(file, words, options.trials, options.sampler_seed)
    configs = check_all(file, words, listed)
    workers = _workers(options, configs)
    folder = SweepFolder(Path(options.folder or f"runs/sweeps/{path.stem}"))
    if dry_run:
        return _print_commands(file, words, listed, folder, options)
    return _run(file, words, listed, configs, folder, options, slurm, workers, arguments)


def parse(arguments: list[str]) -> tuple[Path, SweepArguments, dict[str, str], list[str], bool]:
    """Sweep file, options, Slurm's options, overrides for the trials, and whether it is a dry run."""
    files, values, slurm, typed = [], {}, {}, []
    rest, flags = take_flags(arguments, ("--dry-run",), USAGE)
    for word in rest:
        key, equals, value = word.partition("=")
        if not equals:
            files.append(word)
        elif key in SweepArguments.model_fields:
            values[key] = value
        elif key.startswith("slurm."):
            slurm[key.removeprefix("slurm.")] = value
        else:
            _not_meant_for_us(key)
            typed.append(word)
    if len(files) != 1:
        what = "Name one sweep file" if not files else f"{', '.join(files)}: name one sweep file"
        raise ConfigError(f"{what}, as in  gradspike sweep sweeps/quick.yaml\n\n{USAGE}")
    try:
        options = SweepArguments.model_validate(values)
    except ValidationError as error:
        lines = [f"{detail['loc'][0]}={values[str(detail['loc'][0])]}: {explain(detail)}" for detail in error.errors()]
        raise ConfigError("\n".join(lines)) from error
    if options.executor == "local" and slurm:
        raise ConfigError(f"slurm.{next(iter(slurm))}: add executor=slurm")
    if options.executor != "local" and options.gpus:
        raise ConfigError("gpus: the cluster hands out its GPUs itself; use gpus_per_trial=1")
    return Path(files[0]).expanduser(), options, slurm, typed, "--dry-run" in flags


def _not_meant_for_us(key: str) -> None:
    """A misspelt option of ours is told as such, before it is taken for one of the trials'."""
    if "." not in key and key.lstrip("+~") not in ExperimentConfig.model_fields:
        hint = did_you_mean(key, [*SweepArguments.model_fields, *ExperimentConfig.model_fields])
        raise ConfigError(f"{key}: is neither an option of sweep.py nor a key of the trials.{hint}\n\n{USAGE}")


def _workers(options: SweepArguments, configs: list[ExperimentConfig]) -> int:
    """Trials at once. Raises ConfigError where the GPUs do not suffice for them."""
    needed = max(config.trainer.devices for config in configs)
    if not options.gpus:
        return options.workers or (CLUSTER_WORKERS if options.executor != "local" else 1)
    most = len(options.gpus) // needed
    if most == 0:
        raise ConfigError(f"gpus={','.join(options.gpus)}: a trial of this sweep needs {needed} GPUs.")
    if options.workers is not None and options.workers > most:
        raise ConfigError(f"workers={options.workers}: {len(options.gpus)} GPUs suffice for {most} trials at once.")
    return options.workers or most


def _print_commands(
    file: SweepFile, words: Words, listed: list[Proposal], folder: SweepFolder, options: SweepArguments
) -> int:
    known = [proposal.values for proposal in listed if proposal.values is not None]
    if file.options.method == "bayes":
        from gradspike.tools.sweep.study import preview

        known = preview(
            file.options.metric, swept_parameters(file), options.sampler_seed, min(len(listed), SHOWN_PROPOSALS)
        )
    first = known if file.options.method == "grid" else known[:SHOWN_PROPOSALS]
    lines = []
    for values in first:
        command = words.shown([*words.of(values), override("runs_dir", str(shown(folder.runs)))])
        variables = [f"{name}={shlex.quote(value)}" for name, value in words.environment.items()]
        lines.append(" ".join([*variables, command]))
    rest = len(listed) - len(first)
    if rest:
        how = "chosen from the results so far" if file.options.method == "bayes" else "drawn in the same way"
        lines.append(f"# and {rest} more, {how}")
    print("\n".join(lines))
    return 0


def _run(
    file: SweepFile,
    words: Words,
    listed: list[Proposal],
    configs: list[ExperimentConfig],
    folder: SweepFolder,
    options: SweepArguments,
    slurm: dict[str, str],
    workers: int,
    arguments: list[str],
) -> int:
    from gradspike.tools.sweep.runner import Plan, Runner
    from gradspike.tools.sweep.slurm import Cluster
    from gradspike.tools.sweep.study import Study, build_pruner, hidden
    from gradspike.tools.sweep.table import Table

    needed = max(config.trainer.devices for config in configs)
    cluster = None
    if options.executor != "local":
        local = options.executor == "submitit-local"
        gpus = options.gpus_per_trial or 0
        cluster = Cluster(folder, words, local, workers, gpus, needed, slurm)
    storage = options.storage or f"sqlite:///{folder.path / 'study.db'}"
    folder.create(folder.path.name, "study.db" if options.storage is None else hidden(options.storage))
    metric = file.options.metric
    epochs = max(config.trainer.max_epochs for config in configs)
    pruner = build_pruner(options.pruner, file.options.early_terminate, epochs)
    with folder.locked("study"):  # of several runners that start together one makes the study
        study = Study(storage, folder.path.name, metric, pruner, options.sampler_seed)
        _check_same(study, folder, file, words, listed, options)
        total = study.fill(listed, definition(file, words, options))
        if total > len(listed):
            print(f"{folder.path}: has {total} trials from before; all of them are run.")
        write_atomically(folder.path / "sweep.yaml", file.text)
    plan = Plan(
        words=words,
        metric=metric,
        swept=swept_parameters(file),
        workers=workers,
        gpus=list(options.gpus),
        gpus_needed=needed,
        retries=options.retries,
        epochs=epochs,
    )
    table = Table(metric, total, typed_command("sweep", *arguments))
    try:
        return Runner(folder, study, plan, cluster, table).run()
    finally:
        study.close()


def definition(file: SweepFile, words: Words, options: SweepArguments) -> dict[str, Any]:
    """What must stay as it is while a sweep goes on, for the message that says what differs."""
    flat = {f"parameters.{name}": options for name, options in file.raw_parameters.items()}
    shaping = {f"every trial: {word.partition('=')[0]}": word for word in words.shaping({})}
    seed = {} if file.options.method == "grid" else {"sampler_seed": options.sampler_seed}
    return {"method": file.options.method, "metric": file.options.metric.model_dump(), **seed, **flat, **shaping}


def _check_same(
    study: Study, folder: SweepFolder, file: SweepFile, words: Words, listed: list[Proposal], options: SweepArguments
) -> None:
    """A sweep may grow while it goes on, by values of a grid or by trials; anything else needs a folder of its own.

    Raises ConfigError that says what differs.
    """
    before, now = study.definition(), definition(file, words, options)
    if before is None or before == now:
        return
    there = {trial.user_attrs["key"] for trial in study.trials()}
    differing = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    grown = file.options.method == before["method"] == "grid" and there <= {proposal.key for proposal in listed}
    if grown and not {"method", "metric"} & set(differing):
        print(f"{folder.path}: {len(listed) - len(there)} trials are added to the {len(there)} of before.")
        return
    lines = [f"  {key}: was {before.get(key, 'not there')}, is {now.get(key, 'not there')}" for key in differing]
    raise ConfigError(
        f"{folder.path}: holds another sweep:\n" + "\n".join(lines) + "\nA grid may only gain values. "
        "Choose another folder=..., or go back to the old file (sweep.yaml in that folder)."
    )
