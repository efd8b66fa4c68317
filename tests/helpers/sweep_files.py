"""Sweep files made for a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from gradspike.tools.sweep import words as sweep_words
from gradspike.tools.sweep.file import SweepFile
from gradspike.tools.sweep.proposals import Proposal, proposals

COMMAND = ["${env}", "${interpreter}", "${program}", "logger=wandb", "${args_no_hyphens}"]


def write(folder: Path, **changes: Any) -> Path:
    """A small valid sweep with some keys changed, or left out where the change is None."""
    whole = {
        "program": "src/train.py",
        "method": "grid",
        "metric": {"name": "val/accuracy", "goal": "maximize"},
        "parameters": {"seed": {"values": [0, 1]}, "method": {"values": ["fixed_sg", "psg"]}},
        "command": COMMAND,
    } | changes
    file = folder / "some.yaml"
    file.write_text(yaml.safe_dump({key: value for key, value in whole.items() if value is not None}, sort_keys=False))
    return file


def all_proposals(file: SweepFile, trials: int | None = None, seed: int = 0) -> list[Proposal]:
    return proposals(file, sweep_words.build(file, []), trials, seed)
