"""Start the trials of a sweep, and the other ranks of a training, as forks that need not import everything again.

They are real children of the command that starts them: same session, signals, files and exit codes as with `Popen`.
"""

from __future__ import annotations

import atexit
import os
import pickle
import signal
import subprocess
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from gradspike.tools.sweep import trial
from gradspike.training import processes
from gradspike.training.parent_death import dies_with_this_process

Become = Callable[[dict[str, Any]], None]
"""Runs a command, given its words, folder and variables, with the standard streams of the process."""

waiting: list[tuple[int, int]] = []
"""Process id and pipe of each rank that waits."""


def prepare(become: Become, ranks: int) -> bool:
    """Let the command that this process is about to run fork its children. ranks: how many other ranks it may start.

    Ranks are forked here, before the command has made threads and tensors. They wait until it starts them. Returns
    whether this process is the command itself; a rank returns once it has run.
    """
    dies = dies_with_this_process()
    for _ in range(ranks):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            dies()
            for pipe in (writing, *(pipe for _, pipe in waiting)):
                os.close(pipe)
            _wait(reading, become)
            return False
        os.close(reading)
        waiting.append((child, writing))
    if ranks:
        processes.subprocess = SimpleNamespace(Popen=Rank)  # type: ignore[assignment]

    class Trial(ForkedTrial):
        runs = staticmethod(become)

    known = {name: getattr(subprocess, name) for name in subprocess.__all__}
    trial.subprocess = SimpleNamespace(**known | {"Popen": Trial})  # type: ignore[assignment]
    return True


def _wait(pipe: int, become: Become) -> None:
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
    become(request)


def _words(args: list[str]) -> list[str]:
    """The words of `python -m gradspike WORDS`."""
    return args[args.index("gradspike") + 1 :]


class Rank(subprocess.Popen[bytes]):
    """A rank that waited, started in the place of a new process."""

    def _execute_child(self, args: list[str], *rest: Any) -> None:  # type: ignore[override]
        environment = next(one for one in rest if isinstance(one, dict))
        self.pid, pipe = waiting.pop(0)
        self._child_created = True
        os.write(pipe, pickle.dumps({"words": _words(args), "environment": environment, "cwd": os.getcwd()}))
        os.close(pipe)


class ForkedTrial(subprocess.Popen[bytes]):
    """A trial as a fork of the sweep: closed files, signals and session as `trial.start` asks for."""

    runs: Become

    def _execute_child(  # type: ignore[override]
        self, args: list[str], _executable: Any, preexec: Callable[[], None], _close: bool, kept: list[int],
        _cwd: Any, environment: dict[str, str], _info: Any, _flags: Any, _shell: bool,
        reading: int, p2cwrite: int, c2pread: int, output: int, errread: int, errors: int, *_rest: Any,
    ) -> None:  # fmt: skip
        self.pid = os.fork()
        self._child_created = True
        if self.pid:
            self._close_pipe_fds(reading, p2cwrite, c2pread, output, errread, errors)  # type: ignore[attr-defined]
            return
        code = 1
        try:
            os.setsid()
            for signum in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP, signal.SIGINT}:
                if callable(signal.getsignal(signum)):
                    signal.signal(signum, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            preexec()
            for number, file in enumerate((reading, output, errors)):
                os.dup2(file, number)
            first = 3
            for file in [*sorted(kept), os.sysconf("SC_OPEN_MAX")]:
                os.closerange(first, file)
                first = file + 1
            self.runs({"words": _words(args), "environment": environment, "cwd": os.getcwd()})
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 1
        finally:  # this process never goes back into the sweep
            threading._shutdown()  # type: ignore[attr-defined]
            atexit._run_exitfuncs()
            os._exit(code)
