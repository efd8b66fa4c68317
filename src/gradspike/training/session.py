"""One session of a run, from its start or resume to its end: lock, log file, status, and the next command."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

from gradspike.config.overrides import override
from gradspike.errors import Interrupted, UserError
from gradspike.exhausted import DiskFull, Exhausted
from gradspike.runs.folder import RunFolder
from gradspike.runs.run_log import RunLog
from gradspike.shown import relative, shown
from gradspike.started import typed_command

log = logging.getLogger("gradspike")


@contextmanager
def recorded(
    run: RunFolder,
    command: list[str],
    modules: Sequence[str],
    step: Mapping[str, Any],
    changed: Mapping[str, Any] = MappingProxyType({}),
    new: bool = False,
) -> Iterator[None]:
    """Lock the run, copy log lines to run.log, and record how the session starts and ends.

    `modules` are imported modules outside the package that shape the result; `step` is what an optimiser step sees;
    `changed` are the keys in which a resumed run differs from its start, with both values. A `new` run that cannot be
    locked is removed; any other one stays as it is.
    """
    try:
        run.lock()
    except UserError:
        if new:
            shutil.rmtree(run.path, ignore_errors=True)
        raise
    handler: RunLog | None = None
    try:
        handler = RunLog(run.log)
        log.addHandler(handler)
        run.set_status("running")
        run.record_session(command, modules, step, changed)
        yield
        run.set_status("finished")
    except (Interrupted, KeyboardInterrupt) as error:
        record_end(run, error)
        log.info("Resume with: %s", typed_command("train", override("resume", str(relative(run.path)))))
        raise
    except BaseException as error:
        record_end(run, error)
        if (
            handler is not None
            and not isinstance(error, DiskFull)
            and (isinstance(error, Exhausted) or not isinstance(error, UserError))
        ):
            handler.write_traceback(error)
        if isinstance(error, Exhausted):
            raise type(error)(f"{error} {_saved(run)}") from error
        if run.last.is_file():
            log.info("The last saved state: %s", shown(run.last))
        raise
    finally:
        if handler is not None:
            log.removeHandler(handler)
            handler.close()
        run.unlock()


def _saved(run: RunFolder) -> str:
    """Where the state lies, and the command that continues it."""
    if not run.last.is_file():
        return "Nothing was saved yet."
    command = typed_command("train", override("resume", str(relative(run.path))))
    return f"The last saved state is {shown(run.last)}. Once that is fixed, continue it with: {command}"


def record_end(run: RunFolder, error: BaseException) -> None:
    """Write the state and the reason of a session that this error ends, as far as the disk allows.

    The reason for the end is the error to report, not a full disk.
    """
    try:
        if isinstance(error, Interrupted | KeyboardInterrupt):
            run.set_status("interrupted", str(error))
        else:
            run.set_status("failed", f"{type(error).__name__}: {error}")
    except UserError as full:
        log.error("%s", full)
