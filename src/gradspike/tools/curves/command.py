"""`gradspike curves`: its arguments and steps. Imports nothing heavy before the arguments are checked."""

from __future__ import annotations

from gradspike.cli.arguments import Command, checked_file
from gradspike.errors import UserError
from gradspike.registry import Strict
from gradspike.runs.folder import RunFolder
from gradspike.shown import counted, shown

USAGE = """\
Draw the curves of one run as an image. The run may still be training.

  gradspike curves run=runs/<run>
  gradspike curves run=runs/<run> log=true out=curves.png

Loss, accuracy, learning rate and seconds per epoch; firing rate, gradient-available share, threshold and surrogate
width of each layer.

Arguments:
  run    the run's folder
  out    the image, .png, .pdf or .svg                                     (<run>/curves.png)
  log    true: logarithmic loss                                            (false)
"""

ENDINGS = {".png": "an image", ".pdf": "PDF", ".svg": "SVG"}


class CurvesConfig(Strict):
    """Arguments of `gradspike curves`."""

    run: str
    out: str | None = None
    log: bool = False


COMMAND = Command("curves", USAGE, keys=CurvesConfig)


def curves(words: list[str]) -> int:
    """Draw the curves of a run. Returns the exit code."""
    arguments: CurvesConfig = COMMAND.parse(words).options
    run = RunFolder.open(arguments.run)
    out = checked_file("out=", arguments.out or str(run.path / "curves.png"), ENDINGS)

    from gradspike.tools.curves.records import read

    found = read(run.path)
    if not found.panels:
        raise UserError(f"{shown(run.path)}: has no finished epoch and no measurement yet.")

    from gradspike.tools.curves.plot import draw

    draw(out, found, f"{run.path.name} ({run.state_now()}, {counted(found.epochs, 'epoch')})", log=arguments.log)
    if found.damaged:
        print(f"Skipped {counted(found.damaged, 'line')} of metrics.jsonl that cannot be read.")
    print(f"written: {shown(out)}")
    return 0
