"""`null_gpu_client.py SCRIPT|-m MODULE WORDS...`: a Python process with the null GPU that takes no seconds to start.

A fork of the process at the socket NULLGPU_SERVER, which has imported everything (`null_gpu.py serve`), runs it.
Signals and the exit code are passed on. If this process is killed, so is the fork.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import sys

HEADER = struct.Struct("!I")


def main() -> int:
    channel = socket.socket(socket.AF_UNIX)
    channel.connect(os.environ["NULLGPU_SERVER"])
    request = {"words": sys.argv[1:], "cwd": os.getcwd(), "environment": dict(os.environ)}
    text = json.dumps(request).encode()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _frame: channel.sendall(bytes([number])))
    socket.send_fds(channel, [HEADER.pack(len(text))], [0, 1, 2])
    channel.sendall(text)
    with channel.makefile("rb") as answer:
        code = int(answer.readline() or "1")
    if code < 0:
        os.kill(os.getpid(), -code)
    return code


if __name__ == "__main__":
    sys.exit(main())
