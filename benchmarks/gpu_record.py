"""The result of a step of benchmarks/gpu_check.py: a JSON file that is complete at any moment."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradspike.json_text import readable, to_json
from gradspike.runs.files import write_atomically

PASSED, FAILED, TIMED_OUT, RUNNING = "passed", "failed", "timed out", "running"


@dataclass(frozen=True)
class Task:
    """What a step's process is asked to do.

    size: full or small. python: the start of a command line that runs a script or `-m module`. simulated: the device's
    kernels compute nothing. work: the step's folder for runs. data: where CIFAR-10 is looked for. seconds: time limit.
    jobs: processes at a time.
    """

    step: str
    size: str
    device: str
    simulated: bool
    python: tuple[str, ...]
    work: str
    data: str | None
    seconds: float
    jobs: int

    @property
    def small(self) -> bool:
        return self.size == "small"

    @classmethod
    def read(cls, text: str) -> Task:
        """The inverse of `json.dumps(asdict(task))`."""
        values = json.loads(text)
        return cls(**{**values, "python": tuple(values["python"])})


class Record:
    """Numbers, checks that failed (`problems`) and checks that could not be made (`unchecked`).

    Every addition is written at once, so that a step that is stopped leaves what it has found.
    """

    def __init__(self, file: Path, task: Task) -> None:
        self.file = file
        self.simulated = task.simulated
        self.content: dict[str, Any] = {
            "step": task.step,
            "state": RUNNING,
            "seconds": None,
            "size": task.size,
            "device": task.device,
            "simulated": task.simulated,
            "problems": [],
            "unchecked": [],
            "found": {},
        }
        self._write()

    def note(self, name: str, value: Any) -> None:
        """Add a number, a text or a nested value."""
        self.content["found"][name] = value
        self._write()

    def check(self, what: str, holds: bool, said: str = "") -> bool:
        """Add a problem unless it holds. said: the details."""
        if not holds:
            self.content["problems"].append(f"{what}{': ' if said else ''}{said}")
            self._write()
        return holds

    def check_values(self, what: str, holds: bool, said: str = "") -> None:
        """A check that depends on computed values, which a simulated device does not have."""
        if self.simulated:
            self.content["unchecked"].append(what)
            self._write()
        else:
            self.check(what, holds, said)

    def _write(self) -> None:
        write_atomically(self.file, to_json(self.content, indent=2) + "\n")


def close(file: Path, state: str, seconds: float, problems: Sequence[str] = ()) -> None:
    """Add how a step ended to its file, and more problems if there are some."""
    content = readable(file) or {"step": file.stem, "problems": [], "unchecked": [], "found": {}}
    content |= {"state": state, "seconds": seconds, "problems": [*content["problems"], *problems]}
    write_atomically(file, to_json(content, indent=2) + "\n")


def results(folder: Path) -> Mapping[str, dict[str, Any]]:
    """The results in a folder by step."""
    found = {file.stem: readable(file) for file in sorted(folder.glob("*.json"))}
    return {name: one for name, one in found.items() if one is not None and one.get("step") == name}
