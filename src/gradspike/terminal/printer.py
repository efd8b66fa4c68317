"""What the package logs, as lines for the person at the terminal."""

from __future__ import annotations

import logging

from gradspike.errors import OutputClosed


def speak(first: bool = True) -> None:
    """Print what the package logs. Of several processes that train together only the first one prints more than errors.

    The one place that sets up logging.
    """
    log = logging.getLogger("gradspike")
    log.setLevel(logging.INFO if first else logging.ERROR)
    log.propagate = False
    if not any(isinstance(handler, LogPrinter) for handler in log.handlers):
        log.addHandler(LogPrinter())


class LogPrinter(logging.Handler):
    """Prints to whatever standard output is at the time."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print the record's message. Raises OutputClosed, which nobody takes for an error of a file."""
        try:
            print(self.format(record), flush=True)
        except BrokenPipeError as error:
            raise OutputClosed from error
