"""A run folder: its name, files and state. Imports nothing heavy.

    run.json           the run's id
    config.yaml        the whole configuration
    environment.json   versions, machine, git and command, one entry per session
    status.json        running | finished | failed | interrupted, and the reason; a killed run stays `running`
    metrics.jsonl      all logged numbers
    timing.jsonl       seconds, samples/s and memory of each epoch
    summary.json       the result
    confusion.json     the test confusion matrix
    layers.json        the inputs of each layer in the test (see callbacks.evaluation_record)
    neurobench.json    NeuroBench's metrics in the test (see cost.neurobench); older runs have none
    robustness/        accuracy under attack and corruption
    run.log            the log lines
    checkpoints/       best.ckpt, last.ckpt and earlier states (last-1.ckpt, ...)

metrics.jsonl and summary.json contain nothing that depends on time, so they are equal byte for byte in runs that should
be equal.
"""

from __future__ import annotations

import json
import os
import platform
import secrets
import shutil
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

import yaml

from gradspike.config.schema import ExperimentConfig
from gradspike.config.trust import require_trusted
from gradspike.config.validate import validate
from gradspike.errors import ConfigError, UserError, did_you_mean
from gradspike.exhausted import not_written
from gradspike.json_text import readable
from gradspike.locks import Taken, lock_if_possible
from gradspike.runs.alive import LOCK, running_or_killed
from gradspike.runs.environment import environment
from gradspike.runs.files import json_file, overwritten, write_json, write_record
from gradspike.runs.identity import id_of, write_id
from gradspike.shown import expanded, shown

Summary = dict[str, Any]
"""The content of summary.json."""


class RunFolder:
    """The paths and small files of one run. `create` or `open` makes one; `lock` keeps other processes out."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.last = self.checkpoints / "last.ckpt"
        self.best = self.checkpoints / "best.ckpt"
        self.metrics = path / "metrics.jsonl"
        self.timing = path / "timing.jsonl"
        self.log = path / "run.log"
        self._lock: IO[str] | None = None

    def last_states(self) -> list[Path]:
        """last.ckpt and the older ones that are kept, those that exist, the newest first."""
        older = sorted(self.checkpoints.glob("last-*.ckpt"), key=lambda path: (len(path.name), path.name))
        return [path for path in (self.last, *older) if path.is_file()]

    @property
    def id(self) -> str:
        """The run's id, also in W&B; it stays when the folder is renamed. Raises UserError if run.json is damaged."""
        return id_of(self.path)

    @classmethod
    def create(cls, config: ExperimentConfig) -> RunFolder:
        """Make `<date>_<time>_<method>_<dataset>_<model>_s<seed>_<id>` in `runs_dir`.

        Raises UserError if it cannot be written; nothing is left then.
        """
        stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
        run_id = secrets.token_hex(4)
        path = Path(config.runs_dir).absolute() / f"{stamp}_{config.label()}_s{config.seed}_{run_id}"
        run = cls(path)
        try:
            run.checkpoints.mkdir(parents=True)
            write_id(path, run_id)
            run.set_status("running")
            run._write_config(config.plain())
        except BaseException as error:
            shutil.rmtree(path, ignore_errors=True)  # it has nothing to resume
            if not isinstance(error, OSError):
                raise
            raise not_written(config.runs_dir, error, named="runs_dir=", verb="be written to") from error
        return run

    @classmethod
    def open(cls, path: str) -> RunFolder:
        """Open an existing run by its real path, so that `.`, links and a later chdir do not matter.

        Raises ConfigError if the path is empty or not a run folder; suggests the closest one.
        """
        if not path:
            raise ConfigError("The path of a run must not be empty.")
        run = cls(Path(os.path.realpath(expanded(path))))
        if not (run.path / "config.yaml").is_file():
            marks = ("config.yaml", "status.json")
            around = next((one for one in run.path.parents if all((one / mark).is_file() for mark in marks)), None)
            siblings = [folder.name for folder in run.path.parent.glob("*") if (folder / "config.yaml").is_file()]
            hint = f" Did you mean '{around}'?" if around else did_you_mean(run.path.name, siblings)
            why = "has no config.yaml" if run.path.exists() else "does not exist"
            raise ConfigError(f"{path}: is not a run folder (it {why}).{hint}")
        return run

    def config(self) -> ExperimentConfig:
        """The run's configuration. Raises ConfigError if it cannot be read, or names code that must not be imported."""
        file = self.path / "config.yaml"
        try:
            raw = yaml.safe_load(file.read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError) as error:
            raise ConfigError(f"{file}: cannot be read: {error}") from error
        if not isinstance(raw, dict):
            raise ConfigError(f"{file}: is damaged; it does not contain a configuration.")
        require_trusted(raw, file)
        return validate(raw, recorded=True)

    def extend(self, max_epochs: int) -> None:
        """Record that the run trains for more epochs than it was started with."""
        plain = self.config().plain()
        self._write_config({**plain, "trainer": {**plain["trainer"], "max_epochs": max_epochs}})

    def _write_config(self, plain: dict[str, Any]) -> None:
        write_record(self.path / "config.yaml", yaml.safe_dump(plain, sort_keys=False))

    def checkpoint(self, which: str) -> Path:
        """The path of the checkpoint `last` or `best`. Raises UserError if it does not exist."""
        path = {"last": self.last, "best": self.best}[which]
        if not path.is_file():
            raise UserError(f"unknown checkpoint '{shown(path)}'. The run is {self.state_now()}.")
        return path

    def set_status(self, state: str, reason: str | None = None) -> None:
        """Write status.json: `state` is running, finished, failed or interrupted.

        On a full disk, which has no room for a second file, the old one is overwritten. Raises UserError if it cannot.
        """
        file = self.path / "status.json"
        status = {"state": state, "reason": reason, "pid": os.getpid(), "host": platform.node()}
        try:
            write_json(file, status)
        except UserError:
            if not overwritten(file, json_file(status)):
                raise

    def state(self) -> str:
        """The state in status.json, or `unknown`. `running` may be that of a killed run: see `state_now`."""
        return str(self._status().get("state", "unknown"))

    def _status(self) -> dict[str, Any]:
        """The content of status.json; empty if it cannot be read."""
        return readable(self.path / "status.json") or {}

    def state_now(self) -> str:
        """The state in words, from status.json and, for a run that is `running` there, its lock."""
        state = self.state()
        return running_or_killed(self.path, self._status().get("host")) if state == "running" else state

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Write summary.json."""
        write_json(self.path / "summary.json", summary)

    def write_evaluation(
        self, split: str, results: dict[str, dict[str, float]], data: Mapping[str, str] = MappingProxyType({})
    ) -> Path:
        """Write evaluation_<split>.json; `data` says where moved data were. Raises UserError if it cannot."""
        file = self.path / f"evaluation_{split}.json"
        write_json(file, {**results, "data": dict(data)} if data else results)
        return file

    def summary(self) -> dict[str, Any]:
        """The content of summary.json. Raises UserError if it is missing or damaged."""
        try:
            content: dict[str, Any] = json.loads((self.path / "summary.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{self.path / 'summary.json'}: cannot be read: {error}") from error
        return content

    def sessions(self) -> list[dict[str, Any]]:
        """The entries of environment.json; none if it is missing or damaged."""
        found = readable(self.path / "environment.json", list) or []
        return found if all(isinstance(entry, dict) for entry in found) else []

    def record_session(
        self,
        command: list[str],
        modules: Iterable[str],
        step: Mapping[str, Any],
        changed: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """Add this process to environment.json: versions, machine, git state, digest of the source and command.

        `modules` are imported modules outside the package that shape the result; `step` is what an optimiser step sees;
        `changed` are the keys in which a resumed run differs from its start, with both values.
        """
        file = self.path / "environment.json"
        sessions = self.sessions()
        if not sessions and file.is_file():
            sessions = [{"damaged": file.read_text(encoding="utf-8", errors="replace")}]
        session = {
            **environment(command, modules),
            "step": dict(step),
            **({"changed": dict(changed)} if changed else {}),
        }
        write_json(file, [*sessions, session])

    def lock(self) -> None:
        """Lock the run until `unlock`. Raises UserError if another process is training it."""
        if self._lock is not None:
            return
        file = self.path / LOCK
        try:
            self._lock = file.open("a", encoding="utf-8")
        except OSError as error:
            raise not_written(file, error, verb="be opened") from error
        try:
            lock_if_possible(self._lock, "Make sure that no other process trains this run.")
        except Taken as error:
            self.unlock()
            raise UserError(f"{shown(self.path)}: another process is training this run.") from error

    def unlock(self) -> None:
        """Release the lock."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None


CONFUSION = "confusion.json"
LAYERS = "layers.json"
NEUROBENCH = "neurobench.json"
