"""Turns the user's errors and signals into a message on standard error and an exit code."""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Callable

from gradspike.errors import Interrupted, OutputClosed, UserError
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
    """Run one trial of a multirun: a UserError or a lack of memory or disk ends only this trial, other errors all."""
    try:
        code = action()
        sys.stdout.flush()
        return code
    except UserError as error:
        # Names of files may contain control characters.
        print("Error: " + "\n".join(map(printable, str(error).split("\n"))), file=sys.stderr)
        return error.exit_code
    except BrokenPipeError as error:
        if _output_is_closed():
            raise OutputClosed from error
        raise
    except Exception as error:
        if (said := why_exhausted(error)) is None:
            raise
        print(f"Error: {said}", file=sys.stderr)
        return UserError.exit_code


def _output_is_closed() -> bool:
    """Whether the reader of standard output is gone; pipes to worker processes can break too."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    # Linux reports a pipe without a reader as an error, macOS as a hang-up.
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
