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
from typing import IO

from gradspike.config.overrides import override
from gradspike.errors import UserError
from gradspike.runs.folder import RunFolder
from gradspike.runs.identity import has_id, written_by
from gradspike.shown import relative
from gradspike.started import child_environment
from gradspike.tools.sweep.file import ENERGY, Metric
from gradspike.tools.sweep.folder import Record, State, SweepFolder
from gradspike.tools.sweep.progress import final_value
from gradspike.tools.sweep.words import Words
from gradspike.variables import variable

LOG_LINES = 8


def start(
    folder: SweepFolder, words: Words, record: Record, lock: IO[str], threads: int, own_session: bool = True
) -> tuple[Record, subprocess.Popen[bytes]]:
    """Start the next attempt of a trial, or resume its run. The process inherits the trial's lock.

    Returns the written record and the process. With `own_session`, Ctrl-C in the terminal reaches the process only
    through the runner.
    """
    run = find_run(folder, record)
    if run is None:
        overrides = [*record.overrides, override("runs_dir", str(relative(folder.runs)))]
    else:
        overrides = [override("resume", str(relative(run.path))), *words.free]
    command = words.command(overrides)
    shown_command, attempt = words.shown(overrides), record.attempts + 1
    environment = {
        **child_environment({**os.environ, **words.environment}),
        "OMP_NUM_THREADS": variable("OMP_NUM_THREADS") or str(threads),
        "PYTHONUNBUFFERED": "1",
        **{name: value for name, value in words.environment.items() if name != "PYTHONPATH"},
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
            env=environment,
            start_new_session=own_session,
            pass_fds=[lock.fileno()],
            preexec_fn=_ignore_warning_of_the_cluster,
        )
    lock.close()
    started = record.model_copy(
        update={
            "state": "running",
            "attempts": attempt,
            **place_of(folder, run),
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
    """Kill processes that outlived their trial: other ranks and loader workers, which share its session."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def find_run(folder: SweepFolder, record: Record) -> RunFolder | None:
    """The run of a trial's last attempt, also if its folder was renamed or the record was written before it."""
    if record.run is not None and (folder.path / record.run / "config.yaml").is_file():
        recorded = folder.path / record.run
        if record.run_id is None or has_id(recorded, record.run_id):
            return RunFolder(recorded)
    process = (record.host, record.pid)
    by_process = (place for place in folder.index.of_process(*process) if written_by(place, process, record.started))
    found = folder.index.with_id(record.run_id) or next(by_process, None)
    return RunFolder(found) if found is not None else None


def place_of(folder: SweepFolder, run: RunFolder | None) -> dict[str, str | None]:
    """The fields of a record about the trial's run."""
    if run is None:
        return {"run": None, "run_id": None}
    return {"run": str(run.path.relative_to(folder.path)), "run_id": run.id}


def outcome(folder: SweepFolder, record: Record, metrics: Sequence[Metric], code: int | None) -> Record:
    """The record of a trial whose process ended with `code` (None if no runner saw it end).

    `finished` with its value, `interrupted` if a signal stopped it, else `failed` with the reason.
    """
    run = find_run(folder, record)
    values: list[float | None] = []
    reason = None
    state: State = "failed"
    if run is None:
        reason = _end(folder, record, code) if record.run is None else f"its run {record.run} is missing"
    elif run.state() == "finished":
        try:
            values = [final_value(run, metric) for metric in metrics]
            missing = [metric for metric, value in zip(metrics, values, strict=True) if value is None]
            where = "layers.json" if missing and missing[0].name == ENERGY else "summary.json"
            reason = f"{missing[0].name} is missing in its {where}, or not a number" if missing else None
        except UserError as error:
            reason = str(error)
        state = "finished" if reason is None else "failed"
    elif run.state() in ("interrupted", "failed"):
        state = "interrupted" if run.state() == "interrupted" else "failed"
        reason = _reason(run)
    else:
        reason = _end(folder, record, code)
    first, second = (*(values if state == "finished" else ()), None, None)[:2]
    update = {"state": state, "value": first, "second": second, "reason": reason}
    return record.model_copy(update=update | place_of(folder, run))


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
    """Why a process ended without a reason in its run: a signal, an error in its log, or its last line."""
    if code is not None and code < 0:
        return f"killed by {signal.Signals(-code).name}"
    said = log_end(folder, record.number, 50)
    starts = [index for index, line in enumerate(said) if line.startswith("# ") and " attempt " in line]
    last: Sequence[str] = said[starts[-1] + 1 :] if starts else said
    if error := next((line for line in last if line.startswith("Error: ")), None):
        return error
    how = "ended while no runner was watching" if code is None else f"ended with exit code {code}"
    return f"{how}; its last line: {last[-1]}" if last else how
