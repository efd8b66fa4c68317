"""One run's folder: its name, its files, and what state it is in. Imports nothing heavy.

    config.yaml        the whole configuration
    environment.json   versions, machine, git and command, one entry a session
    status.json        running | finished | failed | interrupted, and why
    metrics.jsonl      every logged number
    timing.jsonl       seconds, samples/s and memory, apart because they never repeat
    summary.json       the result
    confusion.json     who was taken for whom in the test, and
    layers.json        what each layer was given (see callbacks.evaluation_record)
    run.log            what was said
    checkpoints/       best.ckpt and last.ckpt

metrics.jsonl and summary.json hold nothing that depends on the clock, so that two runs that should be equal are equal
byte for byte.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import platform
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import IO, Any

import yaml

from gradspike.code_version import module_digests, source_digest
from gradspike.config import ExperimentConfig, validate
from gradspike.errors import ConfigError, UserError, did_you_mean

PACKAGES = (
    "torch",
    "lightning",
    "hydra-core",
    "omegaconf",
    "torchmetrics",
    "wandb",
    "tonic",
    "timm",
    "numpy",
    "scikit-learn",
)

# What a resumed run may change: where things lie and what is shown, nothing that shapes the result.
FREE_ON_RESUME = ("resume", "data_dir", "logger", "trainer.progress", "checkpoint", "dataset.workers")

# Python tells the umask only by setting it.
_UMASK = os.umask(0o022)
os.umask(_UMASK)


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that a reader, or a kill, never meets half of it."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(temporary, 0o666 & ~_UMASK)  # mkstemp's 0600 would shut out the rest of the group
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def finite(value: Any) -> Any:
    """`value` with every number that is not finite, which JSON cannot hold, as None."""
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write_json(path: Path, value: Any) -> None:
    write_atomically(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def check_writable(folder: str) -> None:
    """Make `folder` where it is missing. Raises UserError where that, or writing into it, is not possible."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"{folder}: cannot be written to ({error.strerror}).") from error


class RunFolder:
    """Paths and small files of one run. Made by `create` or `open`; `lock` keeps a second process out."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.last = self.checkpoints / "last.ckpt"
        self.best = self.checkpoints / "best.ckpt"
        self.metrics = path / "metrics.jsonl"
        self.timing = path / "timing.jsonl"
        self.log = path / "run.log"
        self._lock: IO[str] | None = None

    @property
    def id(self) -> str:
        """The random end of the folder's name, used as the run's id elsewhere (W&B)."""
        return self.path.name.rpartition("_")[2]

    @classmethod
    def create(cls, config: ExperimentConfig) -> RunFolder:
        """Make `<date>_<time>_<method>_<dataset>_<model>_s<seed>_<id>` in `runs_dir`. Raises UserError where nothing
        can be written.
        """
        stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
        path = Path(config.runs_dir) / f"{stamp}_{config.label()}_s{config.seed}_{secrets.token_hex(4)}"
        run = cls(path)
        try:
            run.checkpoints.mkdir(parents=True)
            run.set_status("running")
            write_atomically(path / "config.yaml", yaml.safe_dump(config.plain(), sort_keys=False))
        except OSError as error:
            raise UserError(f"runs_dir={config.runs_dir}: cannot write there: {error.strerror or error}") from error
        return run

    @classmethod
    def open(cls, path: str) -> RunFolder:
        """An existing run. Raises ConfigError when the folder is none, naming the nearest that is."""
        run = cls(Path(path).expanduser())
        if not (run.path / "config.yaml").is_file():
            siblings = [folder.name for folder in run.path.parent.glob("*") if (folder / "config.yaml").is_file()]
            raise ConfigError(
                f"{path}: is not a run's folder (it has no config.yaml).{did_you_mean(run.path.name, siblings)}"
            )
        return run

    def config(self) -> ExperimentConfig:
        """The configuration the run was started with. Raises ConfigError when it cannot be read."""
        file = self.path / "config.yaml"
        try:
            raw = yaml.safe_load(file.read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError) as error:
            raise ConfigError(f"{file}: cannot be read: {error}") from error
        if not isinstance(raw, dict):
            raise ConfigError(f"{file}: is damaged; it does not hold a configuration.")
        return validate(raw)

    def set_status(self, state: str, reason: str | None = None) -> None:
        """Write status.json: `state` is running, finished, failed or interrupted."""
        _write_json(
            self.path / "status.json", {"state": state, "reason": reason, "pid": os.getpid(), "host": platform.node()}
        )

    def state(self) -> str:
        """The state of status.json, or `unknown`."""
        try:
            return str(json.loads((self.path / "status.json").read_text(encoding="utf-8"))["state"])
        except (OSError, ValueError, KeyError):
            return "unknown"

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Write summary.json."""
        _write_json(self.path / "summary.json", finite(summary))

    def write_evaluation(self, split: str, results: dict[str, dict[str, float]]) -> Path:
        """Write evaluation_<split>.json. Raises UserError where the folder does not allow it."""
        file = self.path / f"evaluation_{split}.json"
        try:
            _write_json(file, finite(results))
        except OSError as error:
            raise UserError(f"{file}: cannot be written ({error.strerror}).") from error
        return file

    def summary(self) -> dict[str, Any]:
        """The content of summary.json. Raises UserError when it is missing or damaged."""
        try:
            content: dict[str, Any] = json.loads((self.path / "summary.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{self.path / 'summary.json'}: cannot be read: {error}") from error
        return content

    def record_session(self, command: list[str], modules: Iterable[str] = ()) -> None:
        """Add this process to environment.json: versions, machine, git state, digest of the source and command.

        `modules` are imported modules outside the package that shape the result.
        """
        file = self.path / "environment.json"
        try:
            sessions = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
        except ValueError:
            sessions = [{"damaged": file.read_text(encoding="utf-8", errors="replace")}]
        _write_json(file, [*sessions, environment(command, modules)])

    def lock(self) -> None:
        """Keep the run to this process until it ends. Raises UserError when another one is training it."""
        self._lock = (self.path / ".lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(f"{self.path}: another process is training this run.") from error

    def unlock(self) -> None:
        """Let other processes in again."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def resumed_config(run: RunFolder, requested: ExperimentConfig, typed: list[str]) -> ExperimentConfig:
    """The run's own configuration, with what was typed beside `resume` and may change.

    Raises ConfigError that lists what was typed and differs from the run.
    """
    saved = run.config()
    before, now = saved.plain(), requested.plain()
    typed_keys = [word.partition("=")[0].lstrip("+~") for word in typed]
    differences = []
    for key in typed_keys:
        if _free(key):
            _put(before, key, _get(now, key))
            continue
        ours, theirs = _flat(key, _get(now, key)), _flat(key, _get(before, key))
        # A key typed by itself is judged by itself, not once more with its group.
        differing = sorted(
            inner
            for inner in ours.keys() | theirs.keys()
            if ours.get(inner) != theirs.get(inner) and not _free(inner) and (inner == key or inner not in typed_keys)
        )
        differences += [
            f"  {inner}: the run has {theirs.get(inner)}, the command line {ours.get(inner)}" for inner in differing
        ]
    if differences:
        raise ConfigError(
            f"{run.path}: a resumed run keeps its configuration, but these differ:\n" + "\n".join(differences) + "\n"
            f"Leave them out, or start a new run. Free to change: {', '.join(FREE_ON_RESUME[1:])}."
        )
    return validate({**before, "resume": None})


def _free(key: str) -> bool:
    return any(key == free or key.startswith(f"{free}.") for free in FREE_ON_RESUME)


def _flat(key: str, value: Any) -> dict[str, Any]:
    """`value` at `key` as {dotted key: leaf}."""
    if not isinstance(value, dict):
        return {key: value}
    return {path: leaf for name, inner in value.items() for path, leaf in _flat(f"{key}.{name}", inner).items()}


def _get(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = values.get(part) if isinstance(values, dict) else None
    return values


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    *path, last = key.split(".")
    for part in path:
        values = values.setdefault(part, {})
    values[last] = value


def environment(command: list[str], modules: Iterable[str] = ()) -> dict[str, Any]:
    """What a result may depend on besides the configuration."""
    versions: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": command,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "processor": _processor(),
        "host": platform.node(),
        "versions": versions,
        "git": _git_state(),
        "source": source_digest(),
        "modules": module_digests(modules),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def _git_state() -> dict[str, Any] | None:
    """Commit and uncommitted files of the source this process runs, or None outside a git checkout."""
    here = Path(__file__).resolve().parent

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=here, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        commit = git("rev-parse", "HEAD")
        changed = git("status", "--porcelain", "--untracked-files=no").splitlines()
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "changed_files": [line[3:] if line[2:3] == " " else line[2:] for line in changed]}
