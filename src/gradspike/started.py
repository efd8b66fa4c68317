"""Commands that this process prints or starts, with the same Python and the same code."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Mapping
from importlib.machinery import PathFinder
from pathlib import Path

from gradspike.shown import shell_words

SOURCES = Path(__file__).resolve().parents[1]
"""The folder that holds the package."""


def child_command(*words: str) -> list[str]:
    """The command that runs `gradspike <words>` with this Python and this code."""
    # -P: without it, modules in the working folder could hide Python's own.
    return [sys.executable, *([] if _as_module() else ["-P"]), "-m", "gradspike", *words]


PLACE = re.compile(
    r"((NODE|GROUP|LOCAL|ROLE)_)?RANK|((LOCAL|GROUP|ROLE)_)?WORLD_SIZE|MASTER_(ADDR|PORT)|ROLE_NAME|GRADSPIKE_PARENT"
    r"|(TORCHELASTIC|PMI|PMIX|OMPI|MV2_COMM|JSM)_\w+"
    r"|SLURM_(JOB_?ID|STEP\w*|PROCID|LOCALID|NODEID|N?TASKS?\w*|NPROCS|GTIDS|(JOB_)?(N?NODES|NUM_NODES|NODELIST))"
    r"|SLURM_(SRUN|CPU_BIND|MEM_BIND|TOPOLOGY|LAUNCH_NODE|DISTRIBUTION)\w*"
    r"|WANDB_(RUN_ID|RESUME|SWEEP_ID|SWEEP_PARAM_PATH)"
)
"""Variables that give a process its rank and its W&B run. A process that trains by itself must not inherit them.

Without SLURM_JOB_ID, a process leaves Slurm's signals to the process that started it.
"""


def child_environment(variables: Mapping[str, str]) -> dict[str, str]:
    """The variables of a child process that trains by itself: without PLACE, and with PYTHONPATH if `child_command`
    needs it to find this code.
    """
    kept = {name: value for name, value in variables.items() if not PLACE.fullmatch(name)}
    return kept | python_path(variables)


def python_path(variables: Mapping[str, str]) -> dict[str, str]:
    """PYTHONPATH for `child_command`, if it needs it to find this code."""
    if _importable():
        return {}
    before = variables.get("PYTHONPATH")
    return {"PYTHONPATH": os.pathsep.join([str(SOURCES), *([before] if before else [])])}


def typed_command(command: str, *words: str, launcher: str = "") -> str:
    """`gradspike <command> <words>` to paste into a shell, in the form that the user used for this process.

    launcher: a program that starts it, such as `srun --ntasks=2`.
    """
    program = _start()
    found_by = [f"PYTHONPATH={_short(SOURCES)}"] if "-m" in program and not _importable() else []
    return " ".join(filter(None, [shell_words(found_by), launcher, shell_words([*program, command, *words])]))


def _start() -> list[str]:
    script = Path(sys.argv[0])
    if not _as_module() and script.name == "gradspike" and script.is_file():
        found = shutil.which("gradspike")
        return ["gradspike"] if found is not None and Path(found).samefile(script) else [_short(script)]
    if not _as_module() and (found := shutil.which("gradspike")) and _folder(found) == _folder(sys.executable):
        return ["gradspike"]
    python = shutil.which("python")
    # All executables of virtual environments may be links to one file, so compare folders too.
    ours = python is not None and Path(python).samefile(sys.executable) and _folder(python) == _folder(sys.executable)
    return ["python" if ours else _short(Path(sys.executable)), "-m", "gradspike"]


def _folder(file: str) -> Path:
    return Path(file).absolute().parent


def _as_module() -> bool:
    """Whether `python -m gradspike` started this process."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    return spec is not None and spec.name.partition(".")[0] == "gradspike"


def _importable() -> bool:
    """Whether another Python process in this folder finds this code without PYTHONPATH."""
    # The first entry is the script's folder, which a child process lacks; with `python -m`, it is the working folder.
    found = PathFinder.find_spec("gradspike", sys.path if _as_module() else sys.path[1:])
    places = [Path(place).resolve() for place in (found.submodule_search_locations or [])] if found else []
    return SOURCES / "gradspike" in places


def _short(file: Path) -> str:
    absolute = file.absolute()
    return os.path.relpath(absolute) if absolute.is_relative_to(Path.cwd()) else str(absolute)
