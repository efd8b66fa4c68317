"""Ends a process whose main thread is in a call that does not return, such as a collective operation without its peers.

Python runs signal handlers in the main thread, between two of its instructions. The C handler underneath can also write
each signal's number to a socket, which another thread reads.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Collection

from gradspike.errors import Interrupted

SECONDS_TO_HANDLE = 3.0
"""How long the main thread may take until its handler runs."""


class UnhandledSignals:
    """Counts the stop signals that arrive and those that are handled.

    signals: the stop signals. urgent: whether the program should end at the first signal rather than the second.
    on_end: called with the error before the process ends.
    """

    def __init__(
        self, signals: Collection[int], urgent: Callable[[], bool], on_end: Callable[[Interrupted], None]
    ) -> None:
        self.signals = set(signals)
        self.urgent = urgent
        self.on_end = on_end
        self.handled = 0
        self._closed = threading.Event()
        self._reading, self._writing = socket.socketpair()
        self._writing.setblocking(False)

    def start(self) -> None:
        """Watch from now on. Call it from the main thread."""
        signal.set_wakeup_fd(self._writing.fileno(), warn_on_full_buffer=False)
        # A forked loader process would write its own signals to the same socket.
        os.register_at_fork(after_in_child=self._forget)
        threading.Thread(target=self._follow, daemon=True, name="gradspike-signals").start()

    def close(self) -> None:
        """Stop watching."""
        self._closed.set()
        signal.set_wakeup_fd(-1)
        self._writing.close()

    def _forget(self) -> None:
        if not self._closed.is_set() and threading.current_thread() is threading.main_thread():
            self.close()

    def _follow(self) -> None:
        arrived = 0
        with self._reading:
            while number := self._reading.recv(1):
                if number[0] not in self.signals:
                    continue
                arrived += 1
                if arrived == 1 and not self.urgent():
                    continue
                deadline = time.monotonic() + SECONDS_TO_HANDLE
                while self.handled < arrived and time.monotonic() < deadline:
                    if self._closed.wait(0.05):
                        return
                if self.handled < arrived:
                    self._end(number[0])

    def _end(self, signum: int) -> None:
        error = Interrupted(signum)
        self.on_end(error)
        print(error, file=sys.stderr, flush=True)
        os._exit(error.exit_code)
