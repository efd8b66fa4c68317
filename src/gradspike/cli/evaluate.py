"""`gradspike evaluate`: a run's checkpoints on one split of its data. Imports torch once the arguments are checked."""

from __future__ import annotations

from typing import Literal

from gradspike.cli.arguments import Command
from gradspike.errors import UserError
from gradspike.registry import Strict
from gradspike.runs.folder import RunFolder
from gradspike.shown import shown


class EvaluateConfig(Strict):
    """Arguments of `gradspike evaluate`."""

    run: str
    split: Literal["train", "val", "test"] = "test"
    checkpoint: Literal["last", "best", "both"] = "both"
    data_dir: str | None = None
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"


USAGE = """\
Evaluate the checkpoints of a run on one split of its data.

  gradspike evaluate run=runs/<run> split=test

Arguments:
  run          the run's folder
  split        test | val | train                             (test)
  checkpoint   last | best (by validation accuracy) | both    (both)
  data_dir     where the data is now, if it has moved
  accelerator  auto | cpu | gpu                               (auto)

Prints accuracy, loss and firing rate, and writes evaluation_<split>.json into the run's folder.
"""

COMMAND = Command("evaluate", USAGE, keys=EvaluateConfig)


def evaluate(words: list[str]) -> int:
    """Evaluate a run, print the table and write evaluation_<split>.json into its folder. Returns the exit code."""
    arguments: EvaluateConfig = COMMAND.parse(words).options
    run = RunFolder.open(arguments.run)
    paths = {"last": [run.last], "best": [run.best], "both": [run.last, run.best]}[arguments.checkpoint]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise UserError(f"{missing[0]}: no such checkpoint; the run is {run.state()}.")

    from gradspike.terminal.tables import print_evaluation
    from gradspike.training import evaluate as evaluation

    results = evaluation.evaluate(run, paths, arguments.split, arguments.data_dir, arguments.accelerator)
    print_evaluation(shown(run.path), arguments.split, results)
    print(f"written: {shown(run.write_evaluation(arguments.split, results))}")
    return 0
