"""Run a command as a user would, and the options of a training that takes a second."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

GRADSPIKE = [sys.executable, "-m", "gradspike"]
"""The command line for `gradspike` in a test."""
IMPORT_TIMES = ("-X", "importtime")

TINY = ["model.width=4", "model.depth=2", "trainer.max_epochs=2", "trainer.progress=none", "trainer.accelerator=cpu"]
# A kernel takes seconds to compile or load, a tiny training less; test_engines.py trains with compiled ones.
TINY += ["engine=eager"]


def command(
    *words: str, timeout: float = 240, cwd: Path = ROOT, python: Sequence[str] = (), **environment: str
) -> subprocess.CompletedProcess[str]:
    """`command("train", "seed=1")` runs `gradspike train seed=1`; `python` are flags of the interpreter."""
    return execute(sys.executable, *python, "-m", "gradspike", *words, timeout=timeout, cwd=cwd, **environment)


def here(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Run a command in this process, which has imported everything. Returns its exit code and what it printed."""
    from gradspike.__main__ import main

    capsys.readouterr()
    code = main(words)
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def execute(
    *words: str, timeout: float = 240, cwd: Path = ROOT, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run any program with this checkout's package and nobody logged in to W&B."""
    return subprocess.run(
        list(words),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
        env=variables_of(**environment),
    )


def variables_of(**environment: str) -> dict[str, str]:
    """The variables of a process with this checkout's package and nobody logged in to W&B."""
    sources = os.pathsep.join([str(ROOT / "src"), *filter(None, [environment.pop("PYTHONPATH", "")])])
    kept = {"WANDB_MODE": "", "WANDB_API_KEY": "", "NETRC": os.devnull, "PYTHONPATH": sources}
    return {**os.environ, **kept, **environment}


def imported(import_times: str) -> set[str]:
    """The modules that a process started with IMPORT_TIMES has imported, read from its standard error."""
    return {line.rpartition("|")[2].strip() for line in import_times.splitlines() if line.startswith("import time:")}
