"""What the package logs, as lines for the person at the terminal."""

from __future__ import annotations

import logging

from gradspike.errors import OutputClosed


class LogPrinter(logging.Handler):
    """Prints to whatever standard output is at the time."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print the record's message. Raises OutputClosed, which nobody takes for an error of a file."""
        try:
            print(self.format(record), flush=True)
        except BrokenPipeError as error:
            raise OutputClosed from error
