"""`python WORDS` as a fork of `warm_server.py`: `python -I -S warm_client.py SOCKET WORDS`.

Gives it this process's standard streams, folder and variables, and ends as it does.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import sys


def main() -> int:
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(sys.argv[1])
        request = {"words": sys.argv[2:], "cwd": os.getcwd(), "environment": dict(os.environ)}
        text = json.dumps(request).encode()
        socket.send_fds(server, [struct.pack("!I", len(text))], [0, 1, 2])
        server.sendall(text)
        code = int(server.makefile().read())
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


if __name__ == "__main__":
    sys.exit(main())
