"""Reads the folder of a finished run, or reports why it cannot be compared. Imports nothing heavy."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import yaml

from gradspike.cost.energy import energy_of
from gradspike.errors import UserError
from gradspike.exhausted import raise_if_exhausted
from gradspike.json_text import readable, readable_lines, to_json
from gradspike.runs.alive import running_or_killed
from gradspike.runs.files import fast_yaml
from gradspike.runs.folder import NEUROBENCH
from gradspike.runs.identity import RECORD, id_of, stored_id
from gradspike.runs.wandb_ids import wandb_ids
from gradspike.shown import counted, shown
from gradspike.tools.compare.quantities import of_epoch, of_probe, of_timing, of_validation
from gradspike.tools.compare.run import Run, number

MARKS = ("config.yaml", "status.json", "metrics.jsonl", "summary.json")
PROBES = 120  # number of probe records to read per run, evenly spaced in time


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
        raise Unusable("its training loss is missing or not a number in at least one epoch")
    entries = readable(folder / "environment.json", list) or ()
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
        confusion_file=folder / "confusion.json",
        layers=_layers(folder / "layers.json"),
        neurobench=_neurobench(folder / NEUROBENCH),
        timing=tuple(of_timing(record) for record in readable_lines(folder / "timing.jsonl")),
        sessions=sessions,
    )


def _layers(file: Path) -> dict[str, Any] | None:
    """The content of layers.json; None if it is missing or no energy follows from it."""
    content: dict[str, Any] | None = readable(file)
    try:
        if content is not None:
            energy_of(content["last"], is_ann=False)
    except (LookupError, TypeError, ValueError, AttributeError):
        return None
    return content


def _neurobench(file: Path) -> dict[str, float]:
    """The finite metrics of the last weights; none if the file is missing or damaged."""
    last = (readable(file) or {}).get("last")
    found = {str(name): number(value) for name, value in last.items()} if isinstance(last, dict) else {}
    return {name: value for name, value in found.items() if value is not None}


def _identity(folder: Path, config: Mapping[str, Any], sessions: Sequence[Mapping[str, Any]]) -> str:
    """A digest that a run shares only with its copies: of its configuration, start and id, not its folder's name.

    For a run made before ids were stored, its metrics replace the id.
    """
    started = str(sessions[0]["started"] if sessions else "")
    own = _id(folder) or _digest(folder / "metrics.jsonl")
    return hashlib.sha256(to_json([started, config, own], sort_keys=True, default=str).encode()).hexdigest()


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


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
            raise Unusable(f"its configuration has no {key}: another program wrote it, or its format is older")
    if number(config.get("seed")) is None:
        raise Unusable("its configuration has no seed")
    test, val = summary.get("test"), summary.get("val")
    if not isinstance(test, dict) or not isinstance(test.get("last"), dict) or not isinstance(val, dict):
        raise Unusable("its summary has no test of the last epoch: its format is older")
    for quantity in ("accuracy", "loss"):
        if number(test["last"].get(quantity)) is None:
            raise Unusable(f"its test {quantity} after the last epoch is not a number")


def _config(file: Path) -> dict[str, Any]:
    if not file.is_file():
        trained = (file.parent / "metrics.jsonl").exists()
        raise Unusable(f"has no config.yaml: it was {'removed' if trained else 'stopped before it started'}")
    try:
        config = fast_yaml(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise _unreadable(file, error) from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise Unusable("its config.yaml cannot be read") from error
    if not isinstance(config, dict):
        raise Unusable("its config.yaml is damaged")
    return config


def _require_finished(folder: Path, config: dict[str, Any]) -> None:
    status = _json(folder / "status.json", dict)
    state = status.get("state", "unknown")
    if state == "finished":
        return
    trainer = config.get("trainer")
    planned = trainer.get("max_epochs") if isinstance(trainer, dict) else None
    epochs = counted(planned, "epoch") if isinstance(planned, int) else "? epochs"
    done = f"{_epochs_done(folder / 'metrics.jsonl')} of {epochs} done"
    why = f", {status['reason']}" if status.get("reason") else ""
    if state == "running":
        state = running_or_killed(folder, status.get("host"))
    raise Unusable(f"{state}{why} ({done})")


def _epochs_done(file: Path) -> int:
    try:
        return sum('"train/loss"' in line for line in file.open(encoding="utf-8", errors="replace"))
    except OSError:
        return 0


def _records(file: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, Any]]:
    """The epochs, the probe's training records (thinned out), and its last validation record.

    Probe records are most of the file, which may be larger than memory: only those kept are parsed.
    """
    epochs: list[dict[str, Any]] = []
    probes = array("q")  # places of their lines
    last, validation = "", "{}"
    try:
        with file.open("rb") as lines:
            place = 0
            for line in lines:
                text = line.decode()
                last = text if text.strip() else last
                if '"train/loss"' in text:
                    epochs.append(of_epoch(json.loads(text)))
                if '"probe/' in text:
                    probes.append(place)
                if '"probe_val/' in text:
                    validation = text
                place += len(line)
            if not epochs:
                raise Unusable(f"its {file.name} has no epoch: it is damaged, or in an older format")
            json.loads(last)
            thinned = [of_probe(json.loads(_line_at(lines, place))) for place in _thinned(probes)]
        return epochs, thinned, of_validation(json.loads(validation))
    except OSError as error:
        raise _unreadable(file, error) from error
    except UnicodeDecodeError as error:
        raise Unusable(f"its {file.name} cannot be read") from error
    except (ValueError, AttributeError) as error:
        raise Unusable(f"its {file.name} is half written or damaged") from error


def _line_at(file: IO[bytes], place: int) -> bytes:
    file.seek(place)
    return file.readline()


def _thinned(places: Sequence[int]) -> Sequence[int]:
    """At most PROBES evenly spaced ones. The choice depends only on their number, so all seeds keep the same steps."""
    if len(places) <= PROBES:
        return places
    return [places[round(index * (len(places) - 1) / (PROBES - 1))] for index in range(PROBES)]


def _json(file: Path, kind: type[Any]) -> Any:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise Unusable(f"has no {file.name}") from error
    except OSError as error:
        raise _unreadable(file, error) from error
    except ValueError as error:
        raise Unusable(f"its {file.name} is half written or damaged") from error
    if not isinstance(value, kind):
        raise Unusable(f"its {file.name} is in another format")
    return value


def _unreadable(file: Path, error: OSError) -> Unusable:
    """Raises the error if it says nothing about the file, such as too many open files."""
    raise_if_exhausted(error)
    return Unusable(f"its {file.name} cannot be read ({error.strerror})")
