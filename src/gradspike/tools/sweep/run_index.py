"""The run folders of a sweep, by the run's id and by the process that made it."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from gradspike.errors import UserError
from gradspike.runs.identity import has_id, id_of

SETTLED_NS = 2 * 10**9
"""A folder that changed later than this ago may change again without a new time."""


class RunIndex:
    """Reads each run folder once: a sweep has thousands, and looks for one at every start of a trial.

    A run's id never changes, and its process only when a trial is resumed, whose run is known by then.
    """

    def __init__(self, runs: Path) -> None:
        self.runs = runs
        self._by_id: dict[str, str] = {}
        self._by_process: dict[tuple[Any, Any], list[str]] = {}
        self._read: set[str] = set()
        self._changed = 0
        self._complete = False

    def with_id(self, run_id: str | None) -> Path | None:
        """The run with this id, under its present name; None if it is not there."""
        self._update()
        name = None if run_id is None else self._by_id.get(run_id)
        if name is not None and not has_id(self.runs / name, run_id):  # two runs have changed names
            self._read.clear()
            self._changed = 0
            return self.with_id(run_id)
        return None if name is None else self.runs / name

    def of_process(self, host: str | None, pid: int | None) -> list[Path]:
        """The runs made by a process of this number, which the system gives out again; sorted by name."""
        self._update()
        return [self.runs / name for name in sorted(self._by_process.get((host, pid), ()))]

    def _update(self) -> None:
        try:
            changed = self.runs.stat().st_mtime_ns
            if changed == self._changed and self._complete:
                return
            names = {name for name in os.listdir(self.runs) if not name.startswith(".")}
        except OSError:
            return
        if not self._read or not self._read <= names:  # a folder was renamed or removed
            self._by_id.clear()
            self._by_process.clear()
            self._read.clear()
        self._changed, self._complete = changed, time.time_ns() - changed > SETTLED_NS
        for name in sorted(names - self._read):
            self._complete &= self._add(name)

    def _add(self, name: str) -> bool:
        """Read one run. Returns whether all is written; config.yaml comes last."""
        folder = self.runs / name
        if not (folder / "config.yaml").is_file():
            return not folder.is_dir()
        self._read.add(name)
        with suppress(UserError):  # a damaged record: no trial has its id
            self._by_id.setdefault(id_of(folder), name)
        with suppress(OSError, ValueError, AttributeError):
            status = json.loads((folder / "status.json").read_text(encoding="utf-8"))
            self._by_process.setdefault((status.get("host"), status.get("pid")), []).append(name)
        return True
