"""`gradspike evaluate`: a run's checkpoints on one split of its data, also attacked or corrupted.

Imports torch once the arguments are checked.
"""

from __future__ import annotations

import sys

from gradspike.cli.arguments import Command
from gradspike.cli.evaluate_keys import EvaluateConfig
from gradspike.cli.importing import uncollected
from gradspike.cli.robustness import evaluate_robustness
from gradspike.config.trust import TRUST, trust_all
from gradspike.errors import ConfigError, UserError
from gradspike.exhausted import one_sentence
from gradspike.runs.data import check_data_of_run
from gradspike.runs.files import is_read_only
from gradspike.runs.folder import RunFolder
from gradspike.shown import shown

USAGE = """\
Evaluate the checkpoints of a run on one split of its data.

  gradspike evaluate run=runs/<run> split=test
  gradspike evaluate run=runs/<run> attack=pgd epsilon=2/255,8/255
  gradspike evaluate run=runs/<run> corrupt=noise

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

Attacked or corrupted samples (docs/robustness.md):
  attack          fgsm | pgd, on images
  epsilon         largest change of a pixel of 0 to 1, before normalisation; one or more, as in 2/255,0.03   (8/255)
  steps           steps of pgd                                   (10)
  step_size       change of a pixel in a step of pgd             (2.5 epsilon / steps)
  restarts        random starts of pgd; the worst counts         (1)
  surrogate       shape of the surrogate gradient in the attack  (the run's)
  width           its width kappa, in all layers                 (the method's)
  corrupt         noise (images) | event_drop (event frames)
  levels          noise: standard deviations on pixels of 0 to 1 (0.05,0.1,0.15,0.2,0.3,0.4,0.5)
                  event_drop: shares of events to drop           (0.1,0.2,...,0.9)
  seed            of random starts, noise and dropped events     (0)
  samples         use only this many, evenly by class            (the whole split)

Prints accuracy, loss and firing rate, and writes evaluation_<split>.json into the run folder, unless that is
read-only. With attack or corrupt, prints the accuracy at each strength with its 95 % interval over samples (Wilson) and
writes robustness/<split>_....json there; for several strengths also a figure (.png). Samples other than those used for
training are refused.
"""

COMMAND = Command("evaluate", USAGE, keys=EvaluateConfig, switches=(TRUST,))


def evaluate(words: list[str]) -> int:
    """Evaluate a run, print the table and write evaluation_<split>.json into its folder. Returns the exit code."""
    typed = COMMAND.parse(words)
    arguments: EvaluateConfig = typed.options
    try:
        arguments.check()
    except ConfigError as error:
        raise COMMAND.error(str(error)) from error
    if TRUST in typed.flags:
        trust_all()
    run = RunFolder.open(arguments.run)
    chosen = ("last", "best") if arguments.checkpoint == "both" else (arguments.checkpoint,)
    paths = [run.checkpoint(which) for which in chosen]
    config, data_dir, source = run.config(), arguments.data_dir, arguments.source
    arguments.check_run(config, arguments.engine)
    check_data_of_run(config, data_dir, source)
    if arguments.kind is not None:
        return evaluate_robustness(run, config, paths, arguments)

    with uncollected():
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
