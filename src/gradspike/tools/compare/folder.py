"""Reads the folder of a finished run, or reports why it cannot be compared. Imports nothing heavy."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from gradspike.errors import UserError
from gradspike.json_text import readable_lines, to_json
from gradspike.locks import NoLocks, Taken, lock
from gradspike.runs.identity import RECORD, id_of, stored_id
from gradspike.runs.wandb_ids import wandb_ids
from gradspike.shown import counted, shown
from gradspike.tools.compare.run import Run, number

MARKS = ("config.yaml", "status.json", "metrics.jsonl", "summary.json")
PROBES = 120  # number of probe records to read per run, evenly spaced in time

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Unusable(Exception):
    """Why a run cannot be compared."""


def read_run(folder: Path) -> Run:
    """Read the folder of a finished run. Raises Unusable with the reason."""
    config = _config(folder / "config.yaml")
    _require_finished(folder, config)
    summary = _json(folder / "summary.json", dict)
    check(config, summary)
    epochs, probes, validation = _records(folder / "metrics.jsonl")
    if any(number(record.get("train/loss")) is None for record in epochs):
        raise Unusable("its training loss is not a number in some epoch")
    entries = _optional(folder / "environment.json", list) or ()
    sessions = tuple(entry for entry in entries if isinstance(entry, dict) and "started" in entry)
    return Run(
        id=_identity(folder, config, sessions),
        wandb_ids=_wandb_ids(folder),
        path=shown(folder),
        source="files",
        config=config,
        summary=summary,
        epochs=tuple(epochs),
        probes=tuple(probes),
        validation=validation,
        confusion=_optional(folder / "confusion.json"),
        layers=_optional(folder / "layers.json"),
        timing=tuple(readable_lines(folder / "timing.jsonl")),
        sessions=sessions,
    )


def _identity(folder: Path, config: Mapping[str, Any], sessions: Sequence[Mapping[str, Any]]) -> str:
    """A digest that a run shares only with its copies: of its configuration, start and id, not its folder's name.

    For a run made before ids were stored, its metrics replace the id.
    """
    started = str(sessions[0]["started"] if sessions else "")
    own = _id(folder) or hashlib.sha256((folder / "metrics.jsonl").read_bytes()).hexdigest()
    return hashlib.sha256(to_json([started, config, own], sort_keys=True, default=str).encode()).hexdigest()


def _id(folder: Path) -> str | None:
    try:
        return stored_id(folder)
    except UserError as error:
        raise Unusable(f"its {RECORD} is damaged") from error


def _wandb_ids(folder: Path) -> frozenset[str]:
    """The possible ids of the run in W&B: its own, and the agent's, which is in the names of the client's folders."""
    return frozenset([id_of(folder), *wandb_ids(folder)])


def check(config: dict[str, Any], summary: dict[str, Any]) -> None:
    """Raise Unusable if the configuration or summary lacks something that every comparison needs."""
    for key in ("method", "dataset", "model", "trainer"):
        if not isinstance(config.get(key), dict):
            raise Unusable(f"its configuration has no {key}: another program's, or an older format")
    if number(config.get("seed")) is None:
        raise Unusable("its configuration has no seed")
    test, val = summary.get("test"), summary.get("val")
    if not isinstance(test, dict) or not isinstance(test.get("last"), dict) or not isinstance(val, dict):
        raise Unusable("its summary has no test of the last epoch: an older format")
    for quantity in ("accuracy", "loss"):
        if number(test["last"].get(quantity)) is None:
            raise Unusable(f"its test {quantity} after the last epoch is not a number")


def _config(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise Unusable("has no config.yaml: it was stopped before it started")
    try:
        config = yaml.load(file.read_text(encoding="utf-8"), Loader=_Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise Unusable("its config.yaml cannot be read") from error
    if not isinstance(config, dict):
        raise Unusable("its config.yaml is damaged")
    return config


def _require_finished(folder: Path, config: dict[str, Any]) -> None:
    try:
        status = _json(folder / "status.json", dict)
    except Unusable:
        status = {}
    state = status.get("state", "unknown")
    if state == "finished":
        return
    trainer = config.get("trainer")
    planned = trainer.get("max_epochs") if isinstance(trainer, dict) else None
    epochs = counted(planned, "epoch") if isinstance(planned, int) else "? epochs"
    done = f"{_epochs_done(folder / 'metrics.jsonl')} of {epochs} done"
    why = f", {status['reason']}" if status.get("reason") else ""
    if state == "running":
        state = _running_or_killed(folder, status)
    raise Unusable(f"{state}{why} ({done})")


def _running_or_killed(folder: Path, status: Mapping[str, Any]) -> str:
    """The state of an unfinished run. Only its lock shows whether a process still trains it."""
    try:
        with (folder / ".lock").open(encoding="utf-8") as file:
            lock(file, shared=True)
    except Taken:
        return "still running"
    except NoLocks:
        return "not finished: it is still running, or was killed"
    except OSError:
        pass
    if status.get("host") not in (None, platform.node()):
        return f"not finished: it was killed, or this is a copy and it is still running on {status['host']}"
    return "not finished: it was killed"


def _epochs_done(file: Path) -> int:
    try:
        return sum('"train/loss"' in line for line in file.open(encoding="utf-8", errors="replace"))
    except OSError:
        return 0


def _records(file: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, Any]]:
    """The epochs, the probe's training records (thinned out), and its last validation record.

    Probe records are most of the file; only those kept are parsed.
    """
    try:
        lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise Unusable(f"its {file.name} cannot be read") from error
    epochs = [line for line in lines if '"train/loss"' in line]
    probes = [line for line in lines if '"probe/' in line]
    validations = [line for line in lines if '"probe_val/' in line][-1:]
    if not epochs:
        raise Unusable(f"its {file.name} has no epoch: it is damaged, or in an older format")
    try:
        if lines[-1:]:
            json.loads(lines[-1])
        parsed = [[json.loads(line) for line in part] for part in (epochs, _thinned(probes), validations)]
    except ValueError as error:
        raise Unusable(f"its {file.name} is half written or damaged") from error
    return parsed[0], parsed[1], parsed[2][0] if parsed[2] else {}


def _thinned(lines: list[str]) -> list[str]:
    """At most PROBES evenly spaced lines. The choice depends only on their number, so all seeds keep the same steps."""
    if len(lines) <= PROBES:
        return lines
    return [lines[round(index * (len(lines) - 1) / (PROBES - 1))] for index in range(PROBES)]


def _json(file: Path, kind: type[Any]) -> Any:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise Unusable(f"has no {file.name}") from error
    except (OSError, ValueError) as error:
        raise Unusable(f"its {file.name} is half written or damaged") from error
    if not isinstance(value, kind):
        raise Unusable(f"its {file.name} is in another format")
    return value


def _optional(file: Path, kind: type[Any] = dict) -> Any:
    """The content of a file that a comparison can do without, or None."""
    try:
        return _json(file, kind)
    except Unusable:
        return None
