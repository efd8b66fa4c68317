"""Finds runs below folders and reads them; what cannot be used comes with its reason. Imports nothing heavy."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gradspike.errors import UserError
from gradspike.tools.compare.run import Excluded, Run, number
from gradspike.tools.compare.wandb_files import read_wandb

MARKS = ("config.yaml", "status.json", "metrics.jsonl", "summary.json")
PROBES = 120  # records of the probe that are read of each run; their time goes from the first to the last

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Unusable(Exception):
    """Why a run takes no part."""


@dataclass(frozen=True)
class Gathered:
    """What was found below the folders."""

    runs: tuple[Run, ...]
    excluded: tuple[Excluded, ...]


def gather(paths: Sequence[Path]) -> Gathered:
    """All runs below `paths` (folders, run folders, W&B folders or files), each once. Raises UserError for a path that
    does not exist.
    """
    runs: dict[str, Run] = {}
    excluded: list[Excluded] = []
    # Run folders come first: W&B's files know less.
    for files in _by_run(_places(paths)):
        try:
            run = _read_offline(files) if files[0].suffix == ".wandb" else read_run(files[0])
        except (Unusable, UserError) as reason:
            excluded.append(Excluded(shown(files[0]), str(reason)))
            continue
        known = runs.setdefault(run.id, run)
        if known is not run:
            what = "the same run" if _same(known, run) else "the same id, but other numbers: a changed copy"
            excluded.append(Excluded(run.path, f"{what} as {known.path}; counted once"))
    return Gathered(tuple(runs.values()), tuple(excluded))


def _by_run(places: Iterable[Path]) -> list[list[Path]]:
    """Folders first, each by itself, then W&B's files, those of one run together: a resumed run has several."""
    found = sorted(set(places))
    offline: dict[str, list[Path]] = {}
    for place in found:
        if place.suffix == ".wandb":
            offline.setdefault(place.stem, []).append(place)
    return [[place] for place in found if place.suffix != ".wandb"] + list(offline.values())


def _read_offline(files: list[Path]) -> Run:
    run, ended = read_wandb(files, shown(files[0]))
    if not ended:
        raise Unusable("its W&B files say that it failed, or do not say that it ended")
    check(run.config, run.summary)
    return run


def _same(one: Run, other: Run) -> bool:
    return one.seed == other.seed and one.final("last") == other.final("last")


def _places(paths: Sequence[Path]) -> Iterator[Path]:
    """Run folders, and W&B files that lie in no run folder, in the order of their names."""
    seen: set[Path] = set()
    for path in paths:
        if not path.exists():
            raise UserError(f"{path}: there is no such file or folder.")
        if path.is_file():
            if path.suffix != ".wandb":
                raise UserError(f"{path}: is neither a folder nor a file of W&B (*.wandb).")
            yield path.resolve()
            continue
        for folder, inner, files in os.walk(path.resolve(), followlinks=True):
            here = Path(folder).resolve()
            if here in seen:
                inner.clear()
                continue
            seen.add(here)
            inner[:] = sorted(name for name in inner if not name.startswith("."))
            if sum(mark in files for mark in MARKS) >= 2 or (here == path.resolve() and MARKS[0] in files):
                inner.clear()
                yield here
            elif any(name.endswith(".wandb") for name in files):
                inner.clear()
                yield from (here / name for name in files if name.endswith(".wandb"))


def read_run(folder: Path) -> Run:
    """A finished run's folder. Raises Unusable with the reason, and reads no more than is needed to know it."""
    config = _config(folder / "config.yaml")
    _require_finished(folder, config)
    summary = _json(folder / "summary.json", dict)
    check(config, summary)
    epochs, probes, validation = _records(folder / "metrics.jsonl")
    if any(number(record.get("train/loss")) is None for record in epochs):
        raise Unusable("its training loss is not a number in some epoch")
    return Run(
        id=folder.name.rpartition("_")[2],
        path=shown(folder),
        source="files",
        config=config,
        summary=summary,
        epochs=tuple(epochs),
        probes=tuple(probes),
        validation=validation,
        confusion=_optional(folder / "confusion.json"),
        layers=_optional(folder / "layers.json"),
        timing=tuple(_lines(folder / "timing.jsonl")),
        sessions=tuple(entry for entry in _optional(folder / "environment.json", list) or () if "started" in entry),
    )


def check(config: dict[str, Any], summary: dict[str, Any]) -> None:
    """Raises Unusable unless configuration and summary hold what every comparison needs."""
    for key in ("method", "dataset", "model", "trainer"):
        if not isinstance(config.get(key), dict):
            raise Unusable(f"its configuration has no {key}: not a run of this program, or of an older format")
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
        raise Unusable("has no config.yaml: it was stopped before it began")
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
    done = f"{_epochs_done(folder / 'metrics.jsonl')} of {planned} epochs done"
    why = f", {status['reason']}" if status.get("reason") else ""
    if state == "running":
        state = "under way" if _is_locked(folder) else "not finished: it was killed"
    raise Unusable(f"{state}{why} ({done})")


def _is_locked(folder: Path) -> bool:
    try:
        with (folder / ".lock").open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _epochs_done(file: Path) -> int:
    try:
        return sum('"train/loss"' in line for line in file.open(encoding="utf-8", errors="replace"))
    except OSError:
        return 0


def _records(file: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, Any]]:
    """Epochs, the training's probe records (thinned out), and the last one of a validation.

    Probe records are most of the file, so that only those that are kept are parsed.
    """
    try:
        lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise Unusable(f"its {file.name} cannot be read") from error
    epochs = [line for line in lines if '"train/loss"' in line]
    probes = [line for line in lines if '"probe/' in line]
    validations = [line for line in lines if '"probe_val/' in line][-1:]
    if not epochs:
        raise Unusable(f"its {file.name} has no epoch: it is damaged, or of an older format")
    try:
        if lines[-1:]:
            json.loads(lines[-1])
        parsed = [[json.loads(line) for line in part] for part in (epochs, _thinned(probes), validations)]
    except ValueError as error:
        raise Unusable(f"its {file.name} is half written or damaged") from error
    return parsed[0], parsed[1], parsed[2][0] if parsed[2] else {}


def _thinned(lines: list[str]) -> list[str]:
    """At most PROBES of them, evenly; always the same for the same number, so that seeds keep the same steps."""
    if len(lines) <= PROBES:
        return lines
    return [lines[round(index * (len(lines) - 1) / (PROBES - 1))] for index in range(PROBES)]


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    """The lines of a file that can be read; one that cannot costs no more than itself."""
    if not file.is_file():
        return
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            yield record


def _json(file: Path, kind: type[Any]) -> Any:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise Unusable(f"has no {file.name}") from error
    except (OSError, ValueError) as error:
        raise Unusable(f"its {file.name} is half written or damaged") from error
    if not isinstance(value, kind):
        raise Unusable(f"its {file.name} is of another format")
    return value


def _optional(file: Path, kind: type[Any] = dict) -> Any:
    """A file without which a run can be compared."""
    try:
        return _json(file, kind)
    except Unusable:
        return None


def shown(path: Path) -> str:
    """A path as one would type it here: relative where it lies below the working directory."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
