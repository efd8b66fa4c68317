"""Commands in processes of their own that take no seconds to start: forks of a process that has imported everything.

For tests of a running command: signals, kills, what it leaves behind. How a command starts, what it imports and how it
reads the variables of a cluster is for `helpers.command` to try.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from helpers.command import ROOT, variables_of
from helpers.fork_server import HEADER

SERVER = Path(__file__).with_name("fork_server.py")


class Forked:
    """A running command; it has what tests need of `subprocess.Popen`."""

    def __init__(self, server: ForkServer, request: dict[str, Any], log: Path | None, errors: Path | None) -> None:
        reading, writing = os.pipe()
        with (
            open(os.devnull) as nothing,
            open(log or os.devnull, "wb") as file,
            open(errors or os.devnull, "wb") as other,
        ):
            output = file.fileno() if log else writing
            self.pid: int = server.ask(request, [nothing.fileno(), output, other.fileno() if errors else output])
        os.close(writing)
        self.stdout = open(reading, encoding="utf-8")  # noqa: SIM115  output and errors
        self.returncode: int | None = None
        self._server = server

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        if self.returncode is None:
            self.returncode = self._server.ask({"poll": self.pid})
        return self.returncode

    def wait(self, timeout: float = 60) -> int:
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("gradspike", timeout)
            time.sleep(0.01)
        return code

    def send_signal(self, signum: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, signum)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float = 240) -> tuple[str, None]:
        """Its output until it ends. It is killed after `timeout` seconds."""
        timer = threading.Timer(timeout, self.send_signal, [signal.SIGKILL])
        timer.start()
        with self.stdout:
            output = self.stdout.read()
        timer.cancel()
        self.wait()
        return output, None


class ForkServer:
    """The process that is forked, started with `variables` besides those of this process."""

    def __init__(self, **variables: str) -> None:
        self._variables = variables
        environment = variables_of(**variables)
        environment["PYTHONPATH"] += os.pathsep + str(ROOT / "tests")
        self._channel, theirs = socket.socketpair()
        with theirs:
            subprocess.Popen(
                [sys.executable, "-u", str(SERVER), str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env=environment,
                stdin=subprocess.DEVNULL,
            )

    def start(
        self,
        *words: str,
        cwd: Path = ROOT,
        start_new_session: bool = False,
        ranks: int = 1,
        log: Path | None = None,
        errors: Path | None = None,
        starve: str | None = None,
        **variables: str,
    ) -> Forked:
        """`gradspike <words>`. It prints into `log`, or into a pipe and then ends at the latest when nobody reads that,
        and its errors into the same or into `errors`. Of a training on several processes, `ranks` are forks.
        `starve`: see `helpers.starved`.
        """
        request: dict[str, Any] = {
            "words": words,
            "cwd": str(cwd),
            "environment": variables_of(**self._variables, **variables),
        }
        request |= {"session": start_new_session, "ranks": ranks - 1, "starve": starve}
        return Forked(self, request, log, errors)

    def ask(self, request: dict[str, Any], files: list[int] | None = None) -> Any:
        text = json.dumps(request).encode()
        socket.send_fds(self._channel, [HEADER.pack(len(text))], files or [])
        self._channel.sendall(text)
        with self._channel.makefile("rb") as answer:
            return json.loads(answer.readline())


@functools.cache
def fork_server(**variables: str) -> ForkServer:
    """One for each set of variables in a test process. It ends with the test process."""
    return ForkServer(**variables)
