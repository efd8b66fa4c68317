"""Child processes that die with their parent."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable

PR_SET_PDEATHSIG = 1


def dies_with_this_process() -> Callable[[], None]:
    """A function for `Popen(preexec_fn=...)`: the system kills the child when this process ends (Linux only)."""
    if sys.platform != "linux":
        return lambda: None
    parent = os.getpid()
    prctl = ctypes.CDLL(None).prctl  # loaded before the fork, because a forked child should do as little as possible

    def ask() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return ask
