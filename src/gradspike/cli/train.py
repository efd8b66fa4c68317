"""`gradspike train`: trains the configurations of the command line. Imports torch after checking the command line."""

from __future__ import annotations

from pathlib import Path

from gradspike.cli.hydra import run
from gradspike.cli.importing import uncollected
from gradspike.config.overrides import override
from gradspike.config.schema import ExperimentConfig
from gradspike.config.wandb_options import chosen_folder
from gradspike.data.files.data_dir import check_data_dir
from gradspike.data.presence import check_files
from gradspike.data.sockets import check_socket_paths
from gradspike.errors import ConfigError, UserError
from gradspike.runs.files import check_writable
from gradspike.runs.folder import NEUROBENCH, RunFolder, Summary
from gradspike.runs.newest import AUTO, newest_run
from gradspike.runs.results import damaged_results, lacks_neurobench
from gradspike.runs.resume import resumed_config
from gradspike.runs.start import start_file
from gradspike.runs.timing import training_seconds
from gradspike.shown import listed, relative, shown
from gradspike.training.place import find_place

_trials: list[tuple[str, Summary | None]] = []


def command(words: list[str]) -> int:
    """Train the configurations of the command line. Returns the exit code."""
    return run(words, lambda config, typed: train(config, typed, ["gradspike", "train", *words]), print_trials)


def train(config: ExperimentConfig, typed: list[str], command: list[str] | None = None) -> int:
    """Train one run, or resume the one that `resume` names, and print its closing table. Returns the exit code.

    `typed` are the overrides of the command line; `command` is what the run records of how it was started.
    """
    words = command or ["gradspike", "train", *typed]
    if config.resume == AUTO:
        config, words = _found(config, words)
    resumed = None
    if config.resume is not None:
        resumed = RunFolder.open(config.resume)
        config = resumed_config(resumed, config, typed)
        more = config.trainer.max_epochs > resumed.config().trainer.max_epochs
        if more and not resumed.last_states():
            raise UserError(f"{shown(resumed.path)}: has no checkpoint, so it cannot train for more epochs.")
        if resumed.state() == "finished" and not more:
            if not (damaged := damaged_results(resumed)):
                print(f"{shown(resumed.path)} is finished; nothing to do.")
                if lacks_neurobench(resumed):
                    print(f"It has no {NEUROBENCH}; `gradspike describe run={resumed.path}` measures and writes it.")
                return 0
            lost = f"{shown(resumed.path)} is finished, but results are missing or damaged: {listed(damaged)}."
            if not resumed.last_states():
                raise UserError(f"{lost} Without a checkpoint, they cannot be written again.")
            print(f"{lost} It continues from its newest valid checkpoint and writes them again.")
    _trials.append((" ".join(typed) or "(defaults)", None))
    check_writable(config.runs_dir if resumed is None else str(resumed.path))
    if config.logger.name == "wandb" and (chosen := chosen_folder()) is not None:
        check_writable(chosen, "The environment variable WANDB_DIR=")
    check_files(config.dataset, config.time_steps, check_data_dir(config.data_dir))
    check_socket_paths(config.dataset.workers)
    if resumed is None or not resumed.last_states():
        start_file(config)
    find_place(config.trainer, words)  # a wrong number of processes is an error before torch is imported
    if config.logger.name == "wandb":
        from gradspike.loggers.wandb_environment import check_environment, check_settings_file

        check_settings_file(config.logger)
        check_environment()

    with uncollected():
        from gradspike.terminal.tables import print_result
        from gradspike.training import run as training
        from gradspike.training.processes import is_first_process

    folder, summary = training.train(config, resumed, words)
    _trials[-1] = (_trials[-1][0], summary)
    if is_first_process():
        print_result(summary, training_seconds(folder.timing), str(relative(folder.path)))
    return 0


def _found(config: ExperimentConfig, words: list[str]) -> tuple[ExperimentConfig, list[str]]:
    """Replace `resume=auto` by the run that it finds, for this process and those that it starts; without one, drop it.

    Raises ConfigError if srun or torchrun has started several processes, which could each find another run.
    """
    place = find_place(config.trainer, words)
    if place.world_size > 1 and not place.starts_others:
        raise ConfigError(
            "resume=auto: does not work with srun or torchrun, because each process searches for itself; name the run."
        )
    run = newest_run(config)
    kept = [word for word in words if word.partition("=")[0] != "resume"]
    if run is None:
        print(f"resume=auto: {shown(Path(config.runs_dir))} has no run of this configuration; starting a new one.")
        return config.model_copy(update={"resume": None}), kept
    print(f"resume=auto: {shown(run.path)}")
    return config.model_copy(update={"resume": str(run.path)}), [*kept, override("resume", str(run.path))]


def print_trials() -> None:
    """Print the closing table of a multirun."""
    from gradspike.terminal import tables as terminal

    terminal.print_trials(_trials)
