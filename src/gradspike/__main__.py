"""The command line: `gradspike <command> ...`, the same as `python -m gradspike <command> ...`.

A command's code is imported only when that command runs, so --help and typing errors are answered at once.
"""

from __future__ import annotations

import importlib
import io
import sys
from typing import NoReturn

from gradspike import __version__
from gradspike.cli.ending import run_program
from gradspike.cli.reporting import reporting_errors
from gradspike.errors import ConfigError, UserError, unknown
from gradspike.variables import check_for_training, draw_into_files, unset_empty

COMMANDS = {
    "train": ("train a network, or resume a run", "gradspike.cli.train:command"),
    "evaluate": ("evaluate a run's checkpoints on one split of its data", "gradspike.cli.evaluate:evaluate"),
    "prepare": ("prepare a data set, check it, draw a contact sheet", "gradspike.cli.prepare:prepare"),
    "describe": ("print a network's shapes, parameters, MACs and memory", "gradspike.tools.describe.command:describe"),
    "profile": ("measure the time and memory of a training step", "gradspike.tools.profile.command:profile"),
    "landscape": (
        "compute the loss surface around a run's weights",
        "gradspike.tools.landscape.command:landscape",
    ),
    "export": ("write a trained network as NIR, ONNX or pt2", "gradspike.tools.export.command:export"),
    "curves": ("draw the curves of one run as an image", "gradspike.tools.curves.command:curves"),
    "slurm-script": (
        "print a batch script for Slurm that trains one run",
        "gradspike.tools.slurm_script.command:slurm_script",
    ),
    "sweep": ("run a W&B sweep file without a server", "gradspike.tools.sweep.command:sweep"),
    "compare": ("compare methods over seeds: a table and an offline page", "gradspike.tools.compare.command:compare"),
    "claims": ("compare what papers claim with our own runs", "gradspike.tools.claims.command:claims"),
    "dashboard": ("save a W&B workspace that compares methods", "gradspike.tools.dashboard.command:dashboard"),
}

WITHOUT_TRAINING = ("curves", "compare", "claims", "dashboard")
"""Commands that import neither torch nor Lightning, and start nothing that does."""

USAGE = """\
Train spiking neural networks with surrogate-gradient methods, and compare them.

  gradspike train method=mpd_agl dataset=digits seed=1

Commands:
{commands}

  gradspike <command> --help   the command's arguments
  gradspike --version          the version
"""


def main(words: list[str] | None = None) -> int:
    """Run the command in `words` (default: the command line). Returns the exit code."""
    typed = sys.argv[1:] if words is None else words
    for stream in (sys.stdout, sys.stderr):
        # Print names that are not UTF-8, and letters outside the locale's encoding, with escapes.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    return reporting_errors(lambda: _run(typed))


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage(), end="")
        return 0 if words else 2
    if words[0] in ("-V", "--version"):
        print(f"gradspike {__version__}")
        return 0
    if sys.platform == "win32":
        raise UserError("gradspike runs on Linux and macOS. On Windows, use WSL.")
    name, *rest = words
    if name not in COMMANDS:
        raise ConfigError(unknown("command", name, COMMANDS))
    unset_empty()
    draw_into_files()
    if name not in WITHOUT_TRAINING and not {"-h", "--help"} & set(rest):
        check_for_training()
    module, _, function = COMMANDS[name][1].partition(":")
    code: int = getattr(importlib.import_module(module), function)(rest)
    return code


def usage() -> str:
    """The text of `gradspike --help`."""
    return USAGE.format(commands="\n".join(f"  {name:<14}{line}" for name, (line, _) in COMMANDS.items()))


def program() -> NoReturn:
    """What the installed command `gradspike` runs."""
    run_program(main)


if __name__ == "__main__":
    program()
