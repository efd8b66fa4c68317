"""Shared by the tests of the comparison."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def runs(compared_runs: Path, tmp_path: Path) -> Path:
    """A copy of the trained runs that the test may damage; without checkpoints, which no comparison reads."""
    return Path(shutil.copytree(compared_runs, tmp_path / "runs", ignore=shutil.ignore_patterns("*.ckpt")))
