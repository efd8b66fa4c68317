"""The id of a run, which does not change when its folder is renamed, moved or copied. Imports nothing heavy."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from gradspike.errors import UserError
from gradspike.runs.files import write_json

RECORD = "run.json"


def write_id(folder: Path, run_id: str) -> None:
    """Store the id of a new run."""
    write_json(folder / RECORD, {"id": run_id})


def write_wandb_id(folder: Path, wandb_id: str) -> None:
    """Store the id of a run in W&B that is not its own, as WANDB_RUN_ID gives."""
    write_json(folder / RECORD, {"id": id_of(folder), "wandb_id": wandb_id})


def stored_wandb_id(folder: Path) -> str | None:
    """The id stored by `write_wandb_id`, or None."""
    try:
        found = json.loads((folder / RECORD).read_text(encoding="utf-8"))["wandb_id"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return found if isinstance(found, str) else None


def stored_id(folder: Path) -> str | None:
    """The id stored in a run folder; None for a run made before ids were stored. Raises UserError if damaged."""
    file = folder / RECORD
    try:
        found = json.loads(file.read_text(encoding="utf-8"))["id"]
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror or error}).") from error
    except (ValueError, LookupError, TypeError):
        found = None
    if not isinstance(found, str) or not found:
        raise UserError(f"{file}: is damaged. Restore it, or delete it to take the id from the folder's name.")
    return found


def id_of(folder: Path) -> str:
    """The id of a run: the stored one, else the end of the folder's name. Raises UserError if damaged."""
    return stored_id(folder) or os.path.basename(os.path.realpath(folder)).rpartition("_")[2]


def has_id(folder: Path, run_id: str | None) -> bool:
    """Whether a run folder has this id; a folder with a damaged record has none."""
    try:
        return run_id is not None and id_of(folder) == run_id
    except UserError:
        return False


def written_by(folder: Path, process: tuple[Any, Any], since: float) -> bool:
    """Whether a process, given by host and pid, wrote a run's status since a time in seconds since 1970.

    Pids are reused: a run older than the process (a minute is allowed for the clocks of two machines) is another's.
    """
    try:
        status = json.loads((folder / "status.json").read_text(encoding="utf-8"))
        written = (folder / "status.json").stat().st_mtime
        ours = (status["host"], status["pid"]) == process
    except (OSError, ValueError, LookupError, TypeError):
        return False
    return None not in process and ours and written >= since - 60
