"""Prints the package's log messages."""

from __future__ import annotations

import logging

from gradspike.errors import OutputClosed


def speak(first: bool = True) -> None:
    """Set up logging: print the package's messages, from the first process all, from the others only errors.

    Details (DEBUG) are only for a run's log file.
    """
    log = logging.getLogger("gradspike")
    log.setLevel(logging.DEBUG if first else logging.ERROR)
    log.propagate = False
    if not any(isinstance(handler, LogPrinter) for handler in log.handlers):
        log.addHandler(LogPrinter(logging.INFO))


class LogPrinter(logging.Handler):
    """Prints to the current `sys.stdout`, which may be replaced at any time."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print the message. Raises OutputClosed, because BrokenPipeError could be taken for an error of a file."""
        try:
            print(self.format(record), flush=True)
        except BrokenPipeError as error:
            raise OutputClosed from error
