"""run.log: the log lines of a run."""

from __future__ import annotations

import contextlib
import logging
import sys
from pathlib import Path

from typing_extensions import override

from gradspike.exhausted import not_written


class RunLog(logging.FileHandler):
    """Appends to the log of a run. Reports a full disk once, instead of a traceback for each line.

    Raises UserError if the file cannot be opened.
    """

    def __init__(self, file: Path) -> None:
        self._reported = False
        try:
            super().__init__(file, encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise not_written(file, error) from error
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))

    def write_traceback(self, error: BaseException) -> None:
        """Write an error with its traceback, which the terminal need not show."""
        trace = (type(error), error, error.__traceback__)
        self.handle(logging.LogRecord("gradspike", logging.ERROR, "", 0, "The training failed:", None, trace))

    @override
    def handleError(self, record: logging.LogRecord) -> None:
        if not self._reported:
            self._reported = True
            print(f"{self.baseFilename}: cannot be written ({sys.exc_info()[1]}).", file=sys.stderr)

    @override
    def close(self) -> None:
        with contextlib.suppress(OSError):  # the buffer's lines failed before and were reported
            super().close()
