"""`gradspike sweep`: the sequence of its steps. Imports nothing heavy before mistakes are reported."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gradspike.config.overrides import override
from gradspike.config.schema import ExperimentConfig
from gradspike.errors import ConfigError, UserError
from gradspike.exhausted import disk_is_full
from gradspike.runs.files import write_atomically
from gradspike.shown import counted, relative, shown
from gradspike.started import typed_command
from gradspike.tools.sweep import file as sweep_file
from gradspike.tools.sweep.file import SweepFile
from gradspike.tools.sweep.folder import SweepFolder
from gradspike.tools.sweep.options import CommandLine, SweepArguments, parse
from gradspike.tools.sweep.proposals import Proposal, check_all, proposals
from gradspike.tools.sweep.slurm_options import submitit_options
from gradspike.tools.sweep.words import Words, build

SHOWN_PROPOSALS = 10


def sweep(arguments: list[str]) -> int:
    """Run a sweep, or print its commands. Returns the exit code."""
    line = parse(arguments)
    slurm = submitit_options(line.slurm) if line.slurm else {}
    file = sweep_file.read(line.file)
    words = build(file, line.typed, line.config_dir)
    listed = proposals(file, words, line.options.trials, line.options.sampler_seed)
    configs = check_all(file, words, listed)
    workers = line.options.workers_for(configs)
    folder = SweepFolder(Path(line.options.folder or f"runs/sweeps/{line.file.stem}"))
    if line.dry_run:
        return _print_commands(file, words, listed, folder, line.options)
    try:
        return _run(file, words, listed, configs, folder, line, slurm, workers, arguments)
    except Exception as error:
        if not disk_is_full(error):
            raise
        raise UserError(
            f"{shown(folder.path)}: the disk is full. Free some space, then type the same command again to continue."
        ) from error


def _print_commands(
    file: SweepFile, words: Words, listed: Sequence[Proposal], folder: SweepFolder, options: SweepArguments
) -> int:
    known = [proposal.values for proposal in listed if proposal.values is not None]
    if file.options.method == "bayes":
        from gradspike.tools.sweep.study import preview

        known = preview(file.options.metrics, file.swept, options.sampler_seed, listed[:SHOWN_PROPOSALS])
    first = known if file.options.method == "grid" else known[:SHOWN_PROPOSALS]
    lines = []
    for values in first:
        command = words.shown([*words.of(values), override("runs_dir", str(relative(folder.runs)))])
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
    listed: Sequence[Proposal],
    configs: Sequence[ExperimentConfig],
    folder: SweepFolder,
    line: CommandLine,
    slurm: dict[str, Any],
    workers: int,
    arguments: Sequence[str],
) -> int:
    from gradspike.tools.sweep.definition import check_same, definition
    from gradspike.tools.sweep.runner import Runner
    from gradspike.tools.sweep.slurm import Cluster
    from gradspike.tools.sweep.storage import check_url, hidden
    from gradspike.tools.sweep.study import Study, build_pruner
    from gradspike.tools.sweep.table import Table
    from gradspike.tools.sweep.workload import Plan, Workload

    options, metric, second = line.options, file.options.metric, file.options.gradspike.second
    if second is not None and options.pruner not in (None, "none"):
        raise ConfigError(f"pruner={options.pruner}: compares one metric, and {file.path} has two objectives.")
    needed = max(config.trainer.devices for config in configs)
    cluster = None
    if options.executor != "local":
        local = options.executor == "submitit-local"
        cluster = Cluster(folder, words, local, workers, options.gpus_per_trial or 0, needed, slurm)
    if options.storage is not None:
        check_url(options.storage)
    folder.create(folder.path.name, "study.db" if options.storage is None else hidden(options.storage))
    epochs = max(config.trainer.max_epochs for config in configs)
    pruner = build_pruner(options.pruner, file.options.early_terminate, epochs)
    with folder.locked("study"):  # if several runners start together, one creates the study
        place = options.storage or folder.path / "study.db"
        study = Study(place, folder.study, metric, pruner, options.sampler_seed, second)
        now = definition(file, words, options)
        check_same(study, folder, file, now, listed)
        total = study.fill(listed, now)
        if total > len(listed):
            print(
                f"{shown(folder.path)}: has {counted(total, 'trial')}, more than the {len(listed):,} asked for now. "
                "All of them run until they are finished."
            )
        write_atomically(folder.path / "sweep.yaml", file.text)
    plan = Plan(
        words=words,
        metrics=file.options.metrics,
        swept=file.swept,
        workers=workers,
        gpus=list(options.gpus),
        gpus_needed=needed,
        retries=options.retries,
        epochs=epochs,
    )
    table = Table(file.options.metrics, total, typed_command("sweep", *arguments))
    try:
        return Runner(Workload(folder, study, plan, cluster, table)).run()
    finally:
        study.close()
