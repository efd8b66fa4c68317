"""How the program ends: at once when its work is done."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from gradspike.cli.locale import read_names_as_utf8


def run_program(main: Callable[[], int]) -> NoReturn:
    """Run `main` and end this process with the exit code that it returns.

    Python would take torch's and Lightning's objects apart, which takes seconds and serves nobody. Threads are awaited
    and what was registered for the exit is done (W&B, worker processes); then the process ends.
    """
    open_missing_streams()
    read_names_as_utf8()
    code = 1

    def end() -> None:
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)

    atexit.register(end)  # the first to be registered is the last to be called
    try:
        code = main()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        raise
    sys.exit(code)


def open_missing_streams() -> None:
    """Open the null device for each standard stream that was closed when this program started (`>&-`).

    Python has None in its place, and the next file that the program opens would get its number: what a library or a
    child process prints would go into that file.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            number = os.open(os.devnull, os.O_RDWR)  # the lowest free one
            os.set_inheritable(number, True)
            stream = open(number, mode, encoding="utf-8", closefd=False)  # noqa: SIM115  open until the end
            setattr(sys, name, stream)
