"""One session of a run, from start or resume to its end: lock, log file, status, and what to do next."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from gradspike.config.overrides import override
from gradspike.errors import Interrupted, UserError
from gradspike.runs.folder import RunFolder
from gradspike.shown import relative, shown
from gradspike.started import typed_command

log = logging.getLogger("gradspike")


@contextmanager
def recorded(run: RunFolder, command: list[str], modules: Sequence[str], new: bool = False) -> Iterator[None]:
    """Lock the run, copy log lines to run.log, and record how the session starts and ends.

    `modules` are imported modules outside the package that shape the result. A `new` run that cannot be locked is
    removed; any other one stays as it is.
    """
    try:
        run.lock()
    except UserError:
        if new:
            shutil.rmtree(run.path, ignore_errors=True)
        raise
    handler = _log_to(run.log)
    try:
        run.set_status("running")
        run.record_session(command, modules)
        yield
        run.set_status("finished")
    except (Interrupted, KeyboardInterrupt) as error:
        run.set_status("interrupted", str(error))
        log.info("Resume with: %s", typed_command("train", override("resume", str(relative(run.path)))))
        raise
    except BaseException as error:
        run.set_status("failed", f"{type(error).__name__}: {error}")
        if run.last.is_file():
            log.info("The last saved state: %s", shown(run.last))
        raise
    finally:
        log.removeHandler(handler)
        handler.close()
        run.unlock()


def _log_to(file: Path) -> logging.Handler:
    handler = logging.FileHandler(file)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    return handler
