"""Turns the user's errors and signals into a message on standard error and an exit code."""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Callable

from gradspike.errors import Interrupted, OutputClosed, UserError, refused
from gradspike.exhausted import why_exhausted
from gradspike.shown import printable


def reporting_errors(action: Callable[[], int]) -> int:
    """Run `action`; turn a UserError or a signal into one message on standard error and its exit code.

    If the reader of the output is gone, as with `| head`, the command ends at once and silently, like other commands.
    """
    try:
        return tried(action)
    except OutputClosed:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes again when it exits
        return 128 + signal.SIGPIPE
    except Interrupted as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130


def tried(action: Callable[[], int]) -> int:
    """Run one trial of a multirun. A UserError, a lack of memory or disk, or a file that the system refuses ends only
    this trial; other errors end all.
    """
    try:
        code = action()
        sys.stdout.flush()
        return code
    except UserError as error:
        _report(str(error))
        return error.exit_code
    except BrokenPipeError as error:
        if _output_is_closed():
            raise OutputClosed from error
        raise
    except Exception as error:
        if (said := why_exhausted(error) or refused(error)) is None:
            raise
        _report(said)
        return UserError.exit_code


def _report(message: str) -> None:
    # Names of files may contain control characters.
    print("Error: " + "\n".join(map(printable, message.split("\n"))), file=sys.stderr)


def _output_is_closed() -> bool:
    """Whether the reader of standard output is gone; pipes to worker processes can break too."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    # Linux reports a pipe without a reader as an error, macOS as a hang-up.
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
