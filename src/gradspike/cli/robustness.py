"""`gradspike evaluate attack=...` and `corrupt=...`: the steps after the arguments are parsed."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from gradspike.cli.evaluate_keys import EvaluateConfig
from gradspike.cli.importing import uncollected
from gradspike.config.schema import ExperimentConfig
from gradspike.errors import UserError
from gradspike.exhausted import one_sentence
from gradspike.runs.files import is_read_only
from gradspike.runs.folder import RunFolder
from gradspike.shown import shown

if TYPE_CHECKING:
    from gradspike.robustness.measure import Robustness


def evaluate_robustness(
    run: RunFolder, config: ExperimentConfig, checkpoints: list[Path], arguments: EvaluateConfig
) -> int:
    """Measure, print the table, write record and figure. Returns the exit code.

    config: of the run, with which the arguments have been checked.
    """
    with uncollected():
        from gradspike.robustness.measure import measure
        from gradspike.robustness.report import print_robustness
        from gradspike.terminal.tables import console
        from gradspike.training.evaluate import as_evaluated

    evaluated = as_evaluated(
        config,
        arguments.data_dir,
        arguments.accelerator,
        arguments.batch_size,
        arguments.workers,
        arguments.source,
        "eager" if arguments.attack is not None else arguments.engine,
    )
    size = evaluated.dataset.eval_batch_size
    with (
        one_sentence(lambda: f"lower batch_size={size} or samples", keys=""),
        console().status("preparing") as status,  # shown on a terminal only
    ):
        found = measure(evaluated, checkpoints, arguments.split, arguments, status.update)
    print_robustness(shown(run.path), arguments.split, arguments, found)
    _write(run, arguments, found)
    return 0


def _write(run: RunFolder, arguments: EvaluateConfig, found: Mapping[str, Robustness]) -> None:
    """Write the record and, for more than one strength, the figure; print where, or that the folder is read-only."""
    from gradspike.robustness.record import record_path, write_robustness
    from gradspike.robustness.report import draw

    path = record_path(run, arguments.split, arguments.checkpoint, arguments)
    moved = {"data_dir": arguments.data_dir, "dataset.source": arguments.source}
    try:
        given = {key: value for key, value in moved.items() if value is not None}
        write_robustness(path, arguments.split, arguments, found, given)
        print(f"written: {shown(path)}")
        if len(arguments.strengths) > 1:
            figure = path.with_suffix(".png")
            draw(figure, run.path.name, arguments.split, arguments, found)
            print(f"written: {shown(figure)}")
    except UserError as error:
        if not is_read_only(error.__cause__):
            raise
        print(f"Note: the run folder is read-only, so the result is not recorded: {error}", file=sys.stderr)
