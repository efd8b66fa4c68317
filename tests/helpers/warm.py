"""Python processes that have imported torch, Lightning and Hydra, but not gradspike: a second instead of six.

For tests that run several commands of a copy of the package. `helpers.forks` starts commands of this checkout; how a
command starts and what it imports is for `helpers.command` to try.
"""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

SERVER = Path(__file__).with_name("warm_server.py")
CLIENT = Path(__file__).with_name("warm_client.py")


@functools.cache
def warm_python() -> list[str]:
    """The beginning of a command line, in the place of `python`. It understands `-m module`, `-c code` and a file.

    The server starts with the first call and ends with the test process.
    """
    folder = tempfile.mkdtemp(prefix="gradspike-warm-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    place = str(Path(folder) / "socket")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(place)
    listener.listen()
    lifeline, _held = os.pipe()  # closed by the end of this process
    subprocess.Popen(
        [sys.executable, str(SERVER), str(listener.fileno()), str(lifeline)],
        pass_fds=[listener.fileno(), lifeline],
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": "", "OMP_NUM_THREADS": "1"},
    )
    listener.close()
    os.close(lifeline)
    return [sys.executable, "-I", "-S", str(CLIENT), place]
