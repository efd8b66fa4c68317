"""What the entry points call: imports the heavy parts only once the command line is known to be right."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Literal

from gradspike.cli.arguments import parse_key_values
from gradspike.config.schema import ExperimentConfig
from gradspike.data.files.data_dir import check_data_dir
from gradspike.errors import UserError
from gradspike.registry import Strict
from gradspike.runs.files import check_writable
from gradspike.runs.folder import RunFolder
from gradspike.runs.resume import resumed_config

if TYPE_CHECKING:
    from gradspike.terminal.tables import Summary

_trials: list[tuple[str, Summary | None]] = []


def train(config: ExperimentConfig, typed: list[str]) -> int:
    """Train one run, or go on with the one `resume` names; prints its closing table. Returns the exit code."""
    resumed = None
    if config.resume is not None:
        resumed = RunFolder.open(config.resume)
        config = resumed_config(resumed, config, typed)
        if resumed.state() == "finished":
            print(f"{resumed.path} is finished; nothing to do.")
            return 0
    _trials.append((" ".join(typed) or "(defaults)", None))
    check_writable(config.runs_dir if resumed is None else str(resumed.path))
    check_data_dir(config.data_dir)

    from gradspike.terminal.tables import print_result
    from gradspike.training import run as experiment
    from gradspike.training.processes import is_first_process

    run, summary = experiment.train(config, resumed, sys.argv)
    _trials[-1] = (_trials[-1][0], summary)
    if is_first_process():
        print_result(summary, experiment.training_seconds(run), str(run.path))
    return 0


def print_trials() -> None:
    """The closing table of a multirun."""
    from gradspike.terminal import tables as terminal

    terminal.print_trials(_trials)


class EvaluateConfig(Strict):
    """Arguments of src/evaluate.py."""

    run: str
    split: Literal["train", "val", "test"] = "test"
    checkpoint: Literal["last", "best", "both"] = "both"
    data_dir: str | None = None
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"


EVALUATE_USAGE = """\
Evaluate a run's checkpoints on one split of its data.

  python src/evaluate.py run=runs/<run> split=test

  run          a run's folder
  split        test | val | train                             (test)
  checkpoint   last | best (by validation accuracy) | both    (both)
  data_dir     where the data lies now, if it has moved
  accelerator  auto | cpu | gpu                               (auto)
"""


def evaluate(words: list[str]) -> int:
    """Evaluate a run, print the table and write evaluation_<split>.json into its folder. Returns the exit code."""
    arguments = parse_key_values(words, EvaluateConfig, EVALUATE_USAGE)
    run = RunFolder.open(arguments.run)
    paths = {"last": [run.last], "best": [run.best], "both": [run.last, run.best]}[arguments.checkpoint]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise UserError(f"{missing[0]}: there is no such checkpoint; the run is {run.state()}.")

    from gradspike.terminal.tables import print_evaluation
    from gradspike.training import evaluate as evaluation

    results = evaluation.evaluate(run, paths, arguments.split, arguments.data_dir, arguments.accelerator)
    print_evaluation(str(run.path), arguments.split, results)
    print(f"written: {run.write_evaluation(arguments.split, results)}")
    return 0
