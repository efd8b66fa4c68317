"""Fork Python processes that have imported the packages gradspike uses: `python warm_server.py LISTENER LIFELINE`.

Both are numbers of open files: a listening socket, and a pipe that closes when the test process ends. This process
never imports gradspike, so a fork runs whichever copy of it is on its PYTHONPATH. `warm_client.py` is the other side.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import io
import json
import os
import runpy
import select
import signal
import socket
import struct
import sys
import threading
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

# What takes seconds to import; a training imports all of it.
MODULES = ("torch", "torch._dynamo", "lightning", "hydra.compose", "hydra._internal.utils", "sklearn.datasets")
HEADER = struct.Struct("!I")


def main() -> None:
    listener, lifeline = socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2])
    sys.path.pop(0)  # the folder of this file
    installed = list(sys.path)
    gc.disable()
    for module in MODULES:
        importlib.import_module(module)
    gc.freeze()  # forks share what they do not touch
    gc.enable()
    assert "gradspike" not in sys.modules
    while lifeline not in (ready := select.select([listener, lifeline], [], [])[0]):
        assert ready
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            os.close(lifeline)
            end_with(partial(serve, connection, installed))
        connection.close()
        while _ended():
            pass


def _ended() -> bool:
    """Whether a child had ended; it is forgotten."""
    try:
        return os.waitpid(-1, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return False


def serve(connection: socket.socket, installed: list[str]) -> None:
    """Run what a client asks for in one more fork, which is killed if the client ends first. Answers its exit code."""
    head, files, _, _ = socket.recv_fds(connection, HEADER.size, 3)
    (length,) = HEADER.unpack(head)
    request = json.loads(connection.recv(length, socket.MSG_WAITALL))
    child = os.fork()
    if child == 0:
        connection.close()
        end_with(lambda: become(request, files, installed))
    for file in files:
        os.close(file)
    ended = os.pidfd_open(child)
    if ended not in select.select([connection, ended], [], [])[0]:
        os.kill(child, signal.SIGKILL)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    connection.sendall(json.dumps(code).encode())
    os._exit(0)


def end_with(run: Callable[[], None]) -> NoReturn:
    """Run and end as the interpreter does, without the exit handlers of libraries that started threads before the fork:
    those of onnxruntime, which torchmetrics imports, wait for them for ever.
    """
    code: Any = 1
    try:
        run()
        code = 0
    except SystemExit as error:
        code = error.code or 0
        if not isinstance(code, int):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:
        traceback.print_exc()
    finally:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def become(request: dict[str, Any], files: list[int], installed: list[str]) -> None:
    """Run `python WORDS` in this process, as one that has just started."""
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    # Python's stream objects belong to the old streams of this process.
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    for number, name in ((1, "stdout"), (2, "stderr")):
        file = io.BufferedWriter(io.FileIO(number, "w", closefd=False))
        errors = getattr(sys, name).errors
        setattr(sys, name, io.TextIOWrapper(file, encoding="utf-8", errors=errors, line_buffering=number == 2))
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    paths = list(filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)))
    program, *words = request["words"]
    first = request["cwd"] if program in ("-m", "-c") else str(Path(program).resolve().parent)
    sys.path[:] = [first, *(str(Path(path).absolute()) for path in paths), *installed]
    importlib.invalidate_caches()
    if program == "-m":
        sys.argv = words
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    elif program == "-c":
        sys.argv = ["-c", *words[1:]]
        exec(compile(words[0], "<string>", "exec"), sys.modules["__main__"].__dict__)
    else:
        sys.argv = [program, *words]
        runpy.run_path(program, run_name="__main__")


if __name__ == "__main__":
    main()
