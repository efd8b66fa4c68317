"""Commands that this process prints or starts: they work for a user who started it in this way, with this code."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from importlib.machinery import PathFinder
from pathlib import Path

SOURCES = Path(__file__).resolve().parents[1]
"""The folder that holds the package."""


def child_command(*words: str) -> list[str]:
    """The command of a process that runs `gradspike <words>` with this Python and this code."""
    # -P: no module of the working folder may hide one of Python's, as `python -m` would let it.
    return [sys.executable, *([] if _as_module() else ["-P"]), "-m", "gradspike", *words]


def child_environment(variables: Mapping[str, str]) -> dict[str, str]:
    """`variables`, with PYTHONPATH set where `child_command` would not find this code without it."""
    if _importable():
        return dict(variables)
    before = variables.get("PYTHONPATH")
    return {**variables, "PYTHONPATH": os.pathsep.join([str(SOURCES), *([before] if before else [])])}


def typed_command(command: str, *words: str) -> str:
    """`gradspike <command> <words>` for the user to paste into a shell, in the form in which this one was started."""
    return shlex.join([*_start(), command, *words])


def _start() -> list[str]:
    script = Path(sys.argv[0])
    if not _as_module() and script.name == "gradspike" and script.is_file():
        found = shutil.which("gradspike")
        return ["gradspike"] if found is not None and Path(found).samefile(script) else [_short(script)]
    if not _as_module() and (found := shutil.which("gradspike")) and _folder(found) == _folder(sys.executable):
        return ["gradspike"]
    python = shutil.which("python")
    # In a virtual environment all executables are links to the same file, so folders are compared too.
    ours = python is not None and Path(python).samefile(sys.executable) and _folder(python) == _folder(sys.executable)
    found_by = [] if _importable() else [f"PYTHONPATH={_short(SOURCES)}"]
    return [*found_by, "python" if ours else _short(Path(sys.executable)), "-m", "gradspike"]


def _folder(file: str) -> Path:
    return Path(file).absolute().parent


def _as_module() -> bool:
    """Whether `python -m gradspike` started this process."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    return spec is not None and spec.name.partition(".")[0] == "gradspike"


def _importable() -> bool:
    """Whether another Python process in this folder finds this code without help."""
    # The first entry is the script's own folder, which a child has not; with `python -m` it is the working folder.
    found = PathFinder.find_spec("gradspike", sys.path if _as_module() else sys.path[1:])
    places = [Path(place).resolve() for place in (found.submodule_search_locations or [])] if found else []
    return SOURCES / "gradspike" in places


def _short(file: Path) -> str:
    absolute = file.absolute()
    return os.path.relpath(absolute) if absolute.is_relative_to(Path.cwd()) else str(absolute)
