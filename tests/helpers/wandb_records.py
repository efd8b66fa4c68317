"""The W&B files of a run, as printed by W&B's own reader."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from gradspike.runs.folder import RunFolder


def inspect(run: RunFolder) -> list[dict[str, Any]]:
    """Every record of a run's W&B files."""
    return [record for folder in sorted((run.path / "wandb").glob("*run-*-*")) for record in inspect_folder(folder)]


def inspect_folder(folder: Path) -> list[dict[str, Any]]:
    """Every record of one folder of W&B."""
    records = []
    for file in folder.glob("*.wandb"):
        # `leet` is a command of W&B's client; it needs neither login nor network.
        command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        records += [json.loads(line) for line in result.stdout.splitlines()]
    return records


def final_summary(records: list[dict[str, Any]]) -> dict[str, Any]:
    """The last value of each key of the summary."""
    final: dict[str, Any] = {}
    for record in records:
        if record["type"] == "summary":
            final |= record["summary"]["update"]
    return final
