"""A preparation that is killed once some of its parts are finished."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

FINISHED = 3
"""Parts that are finished when it is killed."""


def kill_preparation(code: str, source: Path, data_dir: Path, name: str) -> None:
    """Run Python code with `source` and `data_dir` as arguments, which prepares the data set `name` and hangs in a part
    after the first FINISHED ones, and kill it there.
    """
    process = subprocess.Popen([sys.executable, "-c", code, str(source), str(data_dir)])
    deadline = time.monotonic() + 120
    finished: list[Path] = []
    while len(finished) < FINISHED and process.poll() is None and time.monotonic() < deadline:
        finished = list(data_dir.glob(f"prepared/.{name}-*/parts/[0-9]*/part.json"))
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert len(finished) == FINISHED
    assert not list(data_dir.glob(f"prepared/{name}-????????????????"))
