"""`gradspike evaluate`: a run's checkpoints on one split of its data. Imports torch once the arguments are checked."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from gradspike.cli.arguments import Command
from gradspike.config.trust import TRUST, trust_all
from gradspike.data.presence import check_files
from gradspike.engine.registry import EngineName
from gradspike.errors import UserError
from gradspike.exhausted import one_sentence
from gradspike.registry import Strict
from gradspike.runs.files import is_read_only
from gradspike.runs.folder import RunFolder
from gradspike.shown import expanded, shown


class EvaluateConfig(Strict):
    """Arguments of `gradspike evaluate`."""

    run: str
    split: Literal["train", "val", "test"] = "test"
    checkpoint: Literal["last", "best", "both"] = "both"
    batch_size: PositiveInt | None = None
    workers: Annotated[int, Field(ge=0, le=256)] | None = None
    data_dir: str | None = None
    source: str | None = Field(default=None, alias="dataset.source", min_length=1)
    engine: EngineName | None = None
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"


USAGE = """\
Evaluate the checkpoints of a run on one split of its data.

  gradspike evaluate run=runs/<run> split=test

Arguments:
  run             the run's folder
  split           test | val | train                             (test)
  checkpoint      last | best (by validation accuracy) | both    (both)
  batch_size      samples computed at a time                     (the run's dataset.eval_batch_size)
  workers         loader processes                               (the run's dataset.workers)
  data_dir        where the data is now, if it has moved
  dataset.source  where the data's files are now, if they have moved
  engine          auto | eager | compiled | triton               (the run's)
  accelerator     auto | cpu | gpu                               (auto)
  --trust         import the code outside gradspike that the run names, also if your account never trained with it

Prints accuracy, loss and firing rate, and writes evaluation_<split>.json into the run folder, unless that is
read-only. Samples other than those used for training are refused.
"""

COMMAND = Command("evaluate", USAGE, keys=EvaluateConfig, switches=(TRUST,))


def evaluate(words: list[str]) -> int:
    """Evaluate a run, print the table and write evaluation_<split>.json into its folder. Returns the exit code."""
    typed = COMMAND.parse(words)
    arguments: EvaluateConfig = typed.options
    if TRUST in typed.flags:
        trust_all()
    run = RunFolder.open(arguments.run)
    chosen = ("last", "best") if arguments.checkpoint == "both" else (arguments.checkpoint,)
    paths = [run.checkpoint(which) for which in chosen]

    config, data_dir, source = run.config(), arguments.data_dir, arguments.source
    moved_to = config.dataset if source is None else config.dataset.model_copy(update={"source": source})
    check_files(moved_to, config.time_steps, expanded(data_dir or config.data_dir))

    from gradspike.terminal.tables import print_evaluation
    from gradspike.training import evaluate as evaluation

    size = arguments.batch_size or config.dataset.eval_batch_size
    with one_sentence(lambda: f"lower batch_size={size}", keys=""):
        results = evaluation.evaluate(
            run,
            paths,
            arguments.split,
            data_dir,
            arguments.accelerator,
            arguments.batch_size,
            arguments.workers,
            source,
            arguments.engine,
        )
    moved = {key: value for key, value in (("data_dir", data_dir), ("dataset.source", source)) if value is not None}
    print_evaluation(shown(run.path), arguments.split, results)
    try:
        print(f"written: {shown(run.write_evaluation(arguments.split, results, moved))}")
    except UserError as error:
        if not is_read_only(error.__cause__):
            raise
        print(f"Note: the run folder is read-only, so the result is not recorded: {error}", file=sys.stderr)
    return 0
