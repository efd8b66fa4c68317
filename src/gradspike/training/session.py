"""One session of a run, from start or resume to its end: lock, log file, status, and what to do next."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from gradspike.config.overrides import override
from gradspike.errors import Interrupted
from gradspike.runs.folder import RunFolder
from gradspike.started import typed_command

log = logging.getLogger("gradspike")


@contextmanager
def recorded(run: RunFolder, command: list[str], modules: Sequence[str]) -> Iterator[None]:
    """Lock the run, copy log lines to run.log, and record how the session starts and ends.

    `modules` are imported modules outside the package that shape the result.
    """
    run.lock()
    handler = _log_to(run.log)
    try:
        run.set_status("running")
        run.record_session(command, modules)
        yield
        run.set_status("finished")
    except (Interrupted, KeyboardInterrupt) as error:
        run.set_status("interrupted", str(error))
        log.info("Resume with: %s", typed_command("train", override("resume", str(run.path))))
        raise
    except BaseException as error:
        run.set_status("failed", f"{type(error).__name__}: {error}")
        if run.last.is_file():
            log.info("The last saved state: %s", run.last)
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
