"""A run from W&B's offline files, without its own folder: configuration, summary and curves.

W&B's files contain no timings, confusion matrix or layer inputs, so the comparison leaves these out.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gradspike.errors import UserError
from gradspike.tools.compare.quantities import of_epoch, of_probe, of_validation
from gradspike.tools.compare.run import Run

SECONDS = 120


def read_wandb(files: Sequence[Path], shown: str) -> tuple[Run, bool]:
    """A run from all files of its id (a resumed one has several), and whether it finished.

    Raises UserError if the files cannot be read.
    """
    start: dict[str, Any] = {}
    config: dict[str, Any] = {}
    summary: dict[str, Any] = {}
    history: dict[int, dict[str, Any]] = {}
    sessions: list[dict[str, Any]] = []
    exit_code = None
    for file in files:
        exit_code = None
        for record in _records(file):
            kind = record.get("type")
            content = record.get(str(kind)) or {}
            if kind == "run":
                start = content
                config |= content.get("config", {}).get("update", {})
            elif kind == "summary":
                summary |= content.get("update", {})
            elif kind == "history":
                # A resumed run repeats the steps after its last checkpoint.
                step, item = _shown(content["item"])
                if item:
                    history[step] = item
            elif kind == "environment" and "started_at" in content:
                command = [content.get("code_path", ""), *content.get("args", [])]
                session = {"started": content["started_at"], "command": command, "git": content.get("git")}
                sessions.append({**session, "host": content.get("host")})
            elif kind == "exit":
                exit_code = content.get("exit_code", 0)
    records = [{"step": step, **item} for step, item in sorted(history.items())]
    validations = [record for record in records if any(key.startswith("probe_val/") for key in record)]
    run = Run(
        id=str(start.get("run_id", files[0].stem)),
        path=shown,
        source="wandb",
        config=config,
        summary=_nested(summary),
        epochs=tuple(record for record in records if "train/loss" in record),
        probes=tuple(record for record in records if any(key.startswith("probe/") for key in record)),
        validation=validations[-1] if validations else {},
        sessions=tuple(sessions),
    )
    return run, exit_code == 0


def _shown(item: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """The step of a record, and the numbers in it that a comparison shows."""
    return int(item["_step"]), of_epoch(item) | of_probe(item) | of_validation(item)


def _records(file: Path) -> Iterator[dict[str, Any]]:
    tool = Path(sys.executable).with_name("wandb")
    try:
        # Not through memory: the text of a long run is larger than its file.
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as out:
            subprocess.run(
                [str(tool), "leet", "inspect", "--json", str(file)],
                stdout=out,
                stderr=subprocess.PIPE,
                encoding="utf-8",
                errors="replace",
                timeout=SECONDS,
                check=True,
            )
            out.seek(0)
            yield from (json.loads(line) for line in out if line.strip())
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise UserError(f"W&B cannot read it ({reason})") from error
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        raise UserError(f"cannot be read with {tool} leet inspect ({error})") from error


def _nested(flat: dict[str, Any]) -> dict[str, Any]:
    """{"test/last/loss": 1} as {"test": {"last": {"loss": 1}}}, without W&B's last values of other metrics."""
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        *path, last = key.split("/")
        if path and path[0] not in ("test", "val"):
            continue
        place = nested
        for part in path:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                break
        else:
            place[last] = value
    return nested
