"""What a result may depend on in addition to the configuration: versions, machine, source code, git state."""

from __future__ import annotations

import math
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from gradspike.runs.code_version import module_digests, source_digest

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


def environment(command: list[str], modules: Iterable[str] = ()) -> dict[str, Any]:
    """The entry of environment.json for this process. modules: imported modules that affect the result."""
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


def start_time(sessions: Sequence[Mapping[str, Any]]) -> float:
    """When the first of the sessions started, in seconds since 1970; -inf if that is not recorded.

    Recorded times have the offset of their machine's clock, which summer time or another machine changes. A time
    without an offset is UTC, as W&B's.
    """
    try:
        started = datetime.fromisoformat(str(sessions[0]["started"]))
    except (LookupError, ValueError):
        return -math.inf
    return (started if started.tzinfo else started.replace(tzinfo=UTC)).timestamp()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def _git_state() -> dict[str, Any] | None:
    """Commit and uncommitted files of the running source, or None outside a git checkout."""
    here = Path(__file__).resolve().parent

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=here, capture_output=True, encoding="utf-8", errors="replace", check=True, timeout=10
        ).stdout.strip()

    try:
        commit = git("rev-parse", "HEAD")
        changed = git("status", "--porcelain", "--untracked-files=no").splitlines()
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "changed_files": [line[3:] if line[2:3] == " " else line[2:] for line in changed]}
