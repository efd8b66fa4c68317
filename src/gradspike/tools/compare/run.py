"""One finished run, read from its folder or from W&B's files."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from gradspike.json_text import readable


@dataclass(frozen=True)
class Excluded:
    """A run that is listed but not compared."""

    path: str
    reason: str


@dataclass(frozen=True)
class Run:
    """One finished run."""

    id: str
    """The same for a run and its copies only, independent of their location and name."""
    path: str
    source: Literal["files", "wandb"]
    config: dict[str, Any]
    summary: dict[str, Any]
    epochs: tuple[dict[str, Any], ...]
    """The records that end an epoch, with the numbers that are shown (see `quantities`)."""
    probes: tuple[dict[str, Any], ...] = ()
    """The probe's training records, thinned out if there are many."""
    validation: dict[str, Any] = field(default_factory=dict)
    """The probe's record of the last validation."""
    confusion_file: Path | None = None
    layers: dict[str, Any] | None = None
    neurobench: Mapping[str, float] = field(default_factory=dict)
    """NeuroBench's metrics after the last epoch, by name; empty for older runs."""
    timing: tuple[dict[str, Any], ...] = ()
    sessions: tuple[dict[str, Any], ...] = ()
    wandb_ids: frozenset[str] = frozenset()
    """Its ids in W&B."""

    @property
    def seed(self) -> int:
        """Seed of weights, order and augmentation."""
        return int(self.config["seed"])

    @property
    def confusion(self) -> dict[str, Any] | None:
        """The test confusion matrix, read at each access: those of a thousand runs may not fit in memory."""
        return None if self.confusion_file is None else readable(self.confusion_file)

    @property
    def label(self) -> str:
        """The name of its group, the same as `ExperimentConfig.method_label`."""
        if self.is_ann:
            return "relu"
        method = self.config["method"]
        return str(method.get("label") or str(method["name"]).rpartition(":")[2])

    @property
    def is_ann(self) -> bool:
        """Whether it is the ANN twin."""
        return bool(self.config["model"].get("activation") == "relu")

    @property
    def code(self) -> str | None:
        """The version of the code: the digest of the source if recorded, else git's commit and state.

        A run whose sessions differ lists all versions. None if nothing is recorded.
        """
        versions = [_version(session) for session in self.sessions]
        return " then ".join(dict.fromkeys(known for known in versions if known)) or None

    @property
    def modules(self) -> dict[str, str]:
        """The versions of the modules outside the package that it used (such as the user's methods), by name."""
        found = self.sessions[-1].get("modules") if self.sessions else None
        return dict(found) if isinstance(found, Mapping) else {}

    @property
    def started(self) -> str:
        """The start of the run, or an empty string."""
        return str(self.sessions[0].get("started", "")) if self.sessions else ""

    @property
    def command(self) -> list[str]:
        """The command that started it."""
        return [str(word) for word in self.sessions[0].get("command") or []] if self.sessions else []

    @property
    def commit(self) -> str | None:
        """The commit of the checkout, and whether there were changes; None outside git."""
        return _commit(self.sessions[-1]) if self.sessions else None

    def final(self, which: str, quantity: str = "accuracy") -> float | None:
        """A test result of the `last` or `best` weights."""
        return number(self.summary["test"].get(which, {}).get(quantity))

    @property
    def validates(self) -> bool:
        """Whether there was a validation split."""
        return number(self.summary.get("val", {}).get("best", {}).get("accuracy")) is not None


def number(value: Any) -> float | None:
    """`value` if it is a finite number, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _version(session: Mapping[str, Any]) -> str | None:
    source = session.get("source")
    return f"source {source}" if source else _commit(session)


def _commit(session: Mapping[str, Any]) -> str | None:
    git = session.get("git")
    if not isinstance(git, Mapping) or not git.get("commit"):
        return None
    return f"commit {str(git['commit'])[:10]}" + (" with uncommitted changes" if git.get("changed_files") else "")
