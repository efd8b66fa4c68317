"""What the tests share: configurations of tiny networks and one data folder for the whole session."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gradspike.cli import load_config
from gradspike.config import ExperimentConfig

ROOT = Path(__file__).resolve().parents[1]
TINY = ["model.width=4", "model.depth=2", "trainer.max_epochs=2", "trainer.progress=none", "trainer.accelerator=cpu"]


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def tiny(data_dir: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """Overrides of a training that takes a second; more may be given."""

    def overrides(*more: str) -> list[str]:
        return [*TINY, f"data_dir={data_dir}", f"runs_dir={tmp_path / 'runs'}", *more]

    return overrides


@pytest.fixture
def tiny_config(tiny: Callable[..., list[str]]) -> Callable[..., ExperimentConfig]:
    return lambda *more: load_config(tiny(*more))


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
