"""One trial: its process, its run and its outcome."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from gradspike.config.overrides import override
from gradspike.errors import UserError
from gradspike.runs.folder import RunFolder
from gradspike.started import child_environment
from gradspike.tools.sweep.file import Metric
from gradspike.tools.sweep.folder import Record, SweepFolder, shown
from gradspike.tools.sweep.progress import final_value
from gradspike.tools.sweep.words import Words

LOG_LINES = 8


def start(
    folder: SweepFolder, words: Words, record: Record, lock: IO[str], threads: int
) -> tuple[Record, subprocess.Popen[bytes]]:
    """Start the next attempt of a trial, or resume its run. The process inherits the trial's lock.

    Returns the record as written, and the process. It leads its own session, so Ctrl-C in the terminal reaches it only
    through the runner.
    """
    run = find_run(folder, record)
    if run is None:
        overrides = [*record.overrides, override("runs_dir", str(shown(folder.runs)))]
    else:
        overrides = [override("resume", str(shown(run.path))), *words.free]
    command = words.command(overrides)
    shown_command, attempt = words.shown(overrides), record.attempts + 1
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("SLURM_")},
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads)),
        "PYTHONUNBUFFERED": "1",
        **words.environment,
    }
    if record.gpus:
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(record.gpus)
    began = time.time()
    with folder.log(record.number).open("a", encoding="utf-8") as log:
        print(f"# {time.strftime('%Y-%m-%d %H:%M:%S')} attempt {attempt}: {shown_command}", file=log, flush=True)
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=child_environment(environment),
            start_new_session=True,
            pass_fds=[lock.fileno()],
            preexec_fn=_ignore_warning_of_the_cluster,
        )
    lock.close()
    started = record.model_copy(
        update={
            "state": "running",
            "attempts": attempt,
            "run": None if run is None else str(run.path.relative_to(folder.path)),
            "reason": None,
            "host": platform.node(),
            "pid": process.pid,
            "started": began,
            "command": tuple(command),
        }
    )
    return folder.write(started), process


def _ignore_warning_of_the_cluster() -> None:
    # Slurm sends SIGUSR2 to every process of a job before it ends it; the default action would kill the training.
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)


def end_rest(process: subprocess.Popen[bytes]) -> None:
    """Kill what an ended trial left behind: other ranks and loader workers, which share its session."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def find_run(folder: SweepFolder, record: Record) -> RunFolder | None:
    """The run of a trial's last attempt: the one its record names, else the one its process created."""
    if record.run is not None:
        run = RunFolder(folder.path / record.run)
        return run if (run.path / "config.yaml").is_file() else None
    if record.pid is None:
        return None
    for config in folder.runs.glob("*/config.yaml"):
        try:
            # Pids are reused: a run older than the attempt (allowing for clocks of two machines) is another's.
            if config.stat().st_mtime < record.started - 60:
                continue
            status = json.loads((config.parent / "status.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if (status.get("pid"), status.get("host")) == (record.pid, record.host):
            return RunFolder(config.parent)
    return None


def outcome(folder: SweepFolder, record: Record, metric: Metric, code: int | None) -> Record:
    """The record of a trial whose process ended with `code` (None if no runner saw it end).

    `finished` with its value, `interrupted` if a signal stopped it, else `failed` with the reason.
    """
    run = find_run(folder, record)
    update: dict[str, Any] = {"run": None if run is None else str(run.path.relative_to(folder.path))}
    if run is None:
        update |= {"state": "failed", "reason": _end(folder, record, code)}
        return record.model_copy(update=update)
    state = run.state()
    if state == "finished":
        try:
            value = final_value(run.summary(), metric)
            reason = None if value is not None else f"{metric.name} is missing in its summary.json, or not a number"
        except UserError as error:
            value, reason = None, str(error)
        update |= {"state": "finished" if value is not None else "failed", "value": value, "reason": reason}
    elif state == "interrupted":
        update |= {"state": "interrupted", "reason": _reason(run)}
    elif state == "failed":
        update |= {"state": "failed", "reason": _reason(run)}
    else:
        update |= {"state": "failed", "reason": _end(folder, record, code)}
    return record.model_copy(update=update)


def has_saved(folder: SweepFolder, record: Record) -> bool:
    """Whether the last attempt of a trial has saved its state."""
    run = find_run(folder, record)
    return run is not None and run.last.is_file() and run.last.stat().st_mtime >= record.started


def log_end(folder: SweepFolder, number: int, lines: int = LOG_LINES) -> list[str]:
    """The last lines of a trial's output."""
    try:
        text = folder.log(number).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return [line for line in text.splitlines() if line.strip()][-lines:]


def stop_file(folder: SweepFolder, number: int) -> Path:
    """The file whose presence asks a cluster job to stop."""
    return folder.trial(number) / "stop"


def _reason(run: RunFolder) -> str:
    try:
        return str(json.loads((run.path / "status.json").read_text(encoding="utf-8"))["reason"])
    except (OSError, ValueError, KeyError):
        return run.state()


def _end(folder: SweepFolder, record: Record, code: int | None) -> str:
    """Why a process ended that recorded no reason in its run: the signal, an error in its log, or its last line."""
    if code is not None and code < 0:
        return f"killed by {signal.Signals(-code).name}"
    said = log_end(folder, record.number, 50)
    starts = [index for index, line in enumerate(said) if line.startswith("# ") and " attempt " in line]
    last: Sequence[str] = said[starts[-1] + 1 :] if starts else said
    if error := next((line for line in last if line.startswith("Error: ")), None):
        return error
    how = "ended while no runner was watching" if code is None else f"ended with exit code {code}"
    return f"{how}; its last line: {last[-1]}" if last else how
