"""Run commands as forks of one process that has imported everything: `python -u fork_server.py SOCKET`.

SOCKET is the number of a connected socket. Each request has a header of four bytes, its length, and is a JSON object.
{"words", "cwd", "environment", "session", "ranks", "starve"}, with three open files (standard input, output and error),
starts `python -u -m gradspike <words>` and is answered with its id; the trials that it starts and its other "ranks" are
forks too. {"poll": id} is answered with its exit code, or null while it runs, negative for a signal as in `subprocess`.
"""

from __future__ import annotations

import gc
import importlib
import io
import json
import os
import runpy
import socket
import struct
import sys
from pathlib import Path
from typing import Any

from gradspike.runs.code_version import source_digest
from helpers import forked_children
from helpers.starved import starve

# What every training, sweep and evaluation imports sooner or later.
MODULES = ("gradspike.cli.evaluate", "gradspike.cli.train", "gradspike.terminal.tables", "gradspike.training.evaluate")
MODULES += ("gradspike.training.run", "gradspike.tools.sweep.command", "gradspike.tools.sweep.runner", "optuna")
MODULES += ("hydra._internal.utils", "hydra.compose", "torch._dynamo", "sklearn.datasets")
TESTS = str(Path(__file__).parents[1])
HEADER = struct.Struct("!I")


def main() -> None:
    channel = socket.socket(fileno=int(sys.argv[1]))
    sys.path.remove(TESTS)  # commands do not have it
    gc.disable()
    for module in MODULES:
        importlib.import_module(module)
    gc.freeze()  # forks share what they do not touch
    gc.enable()
    source_digest()  # takes a second, and is kept
    while True:
        head, files, _, _ = socket.recv_fds(channel, HEADER.size, 3)
        if not head:
            return
        (length,) = HEADER.unpack(head)
        request = json.loads(channel.recv(length, socket.MSG_WAITALL))
        if "poll" in request:
            pid, status = os.waitpid(request["poll"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        else:
            answer = os.fork()
            if answer == 0:
                channel.close()
                run(request, files)
                return
        for file in files:
            os.close(file)
        channel.sendall(json.dumps(answer).encode() + b"\n")


def run(request: dict[str, Any], files: list[int]) -> None:
    """Run the command in this process. Ends with SystemExit, as the command itself does."""
    if request["session"]:
        os.setsid()
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    if request["starve"]:
        starve(request["starve"])
    if forked_children.prepare(become, request["ranks"]):
        become(request)


def become(request: dict[str, Any]) -> None:
    """Run the command with the standard streams of this process."""
    # Python's stream objects belong to the old streams of this process.
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    for number, name in ((1, "stdout"), (2, "stderr")):
        unbuffered = io.FileIO(number, "w", closefd=False)
        setattr(sys, name, io.TextIOWrapper(unbuffered, write_through=True, errors=getattr(sys, name).errors))
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.path[0] = request["cwd"]
    sys.argv = ["gradspike", *request["words"]]
    runpy.run_module("gradspike", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
