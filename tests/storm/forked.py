"""The server of `helpers.forks` for trainings on several ranks: `python -u forked.py SOCKET`.

Each command forks its other ranks at once, because they would have to import everything again. They wait until the
command starts them, and are then what it would have started: its children, which die with it.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
from types import SimpleNamespace
from typing import Any

from gradspike.training import processes
from gradspike.training.parent_death import dies_with_this_process
from helpers import fork_server
from storm.session import SPARE

run_command = fork_server.run
waiting: list[tuple[int, int]] = []
"""Process id and pipe of each rank that waits."""


class Started(subprocess.Popen[bytes]):
    """A rank that waited, started in the place of a new process."""

    def _execute_child(self, args: list[str], *rest: Any) -> None:  # type: ignore[override]
        environment = next(one for one in rest if isinstance(one, dict))
        self.pid, pipe = waiting.pop(0)
        self._child_created = True
        words = args[args.index("gradspike") + 1 :]
        os.write(pipe, pickle.dumps({"words": words, "environment": environment, "cwd": os.getcwd(), "session": False}))
        os.close(pipe)


def run(request: dict[str, Any], files: list[int]) -> None:
    if request["session"]:
        os.setsid()
    dies = dies_with_this_process()
    for _ in range(int(request["environment"].get(SPARE, 0))):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            dies()
            for other in (writing, *(pipe for _, pipe in waiting)):
                os.close(other)
            wait(reading, files)
            return
        os.close(reading)
        waiting.append((child, writing))
    processes.subprocess = SimpleNamespace(Popen=Started)  # type: ignore[assignment]
    run_command({**request, "session": False}, files)


def wait(pipe: int, files: list[int]) -> None:
    """Be a rank once the first one wants it; end if it never does."""
    handler = signal.signal(signal.SIGINT, signal.SIG_DFL)
    with open(pipe, "rb") as whole:
        text = whole.read()
    if not text:
        os._exit(0)
    signal.signal(signal.SIGINT, handler)
    request = pickle.loads(text)
    with open("/proc/self/comm", "w") as name:
        name.write(f"rank{request['environment']['LOCAL_RANK']}")
    run_command(request, files)


if __name__ == "__main__":
    fork_server.run = run
    fork_server.main()
