"""Run a command as a user would, and the options of a training that takes a second."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


TINY = ["model.width=4", "model.depth=2", "trainer.max_epochs=2", "trainer.progress=none", "trainer.accelerator=cpu"]
# A kernel takes seconds to compile or load, a tiny training less; test_engines.py trains with compiled ones.
TINY += ["engine=eager"]


def command(
    *words: str, timeout: float = 240, cwd: Path = ROOT, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run one of our commands as a user would, `command("src/train.py", "seed=1")`."""
    return subprocess.run(
        [sys.executable, *words],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "WANDB_MODE": "", "WANDB_API_KEY": "", "NETRC": os.devnull, **environment},
    )
