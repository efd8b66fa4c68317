"""Processes that start warm do what fresh ones do."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.command import execute
from helpers.warm import warm_python

SHOW = """\
import json, os, sys
import shown_module
loaded = "gradspike" in sys.modules
print(json.dumps([__name__, sys.argv[1:], os.getcwd(), os.environ["MINE"], shown_module.VALUE, loaded]))
print("said", file=sys.stderr)
sys.exit(int(sys.argv[1]))
"""


@pytest.mark.parametrize("how", [["-m", "shown"], ["shown.py"], ["-c", SHOW]], ids=lambda words: words[0])
def test_a_warm_process_is_as_a_fresh_one(how: list[str], tmp_path: Path) -> None:
    (tmp_path / "shown.py").write_text(SHOW)
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "shown_module.py").write_text("VALUE = 'é'")
    ended = []
    for python in ([sys.executable], warm_python()):
        done = execute(*python, *how, "3", "a b", cwd=tmp_path, PYTHONPATH="modules", MINE="ä")
        ended.append((done.returncode, done.stdout, done.stderr))
    assert ended[0] == ended[1]
    assert json.loads(ended[0][1]) == ["__main__", ["3", "a b"], str(tmp_path), "ä", "é", False]
    assert (ended[0][0], ended[0][2]) == (3, "said\n")


@pytest.mark.parametrize(
    "code", ["0 / 0", "import sys; sys.exit('no')", "import atexit; atexit.register(print, 'end')", "raise SystemExit"]
)
def test_it_ends_as_a_fresh_one(code: str) -> None:
    fresh, warm = (execute(*python, "-c", code) for python in ([sys.executable], warm_python()))
    assert (warm.returncode, warm.stdout) == (fresh.returncode, fresh.stdout)
    assert warm.stderr.splitlines()[-1:] == fresh.stderr.splitlines()[-1:]


def test_a_signal_ends_it_and_the_end_of_its_client_kills_it(tmp_path: Path) -> None:
    ended = execute(*warm_python(), "-c", "import os, signal; os.kill(os.getpid(), signal.SIGTERM)")
    assert ended.returncode == -signal.SIGTERM
    code = "import time; print(1, flush=True); time.sleep(600)"
    client = subprocess.Popen([*warm_python(), "-c", code], stdout=subprocess.PIPE, text=True)
    assert client.stdout is not None
    with client.stdout:
        assert client.stdout.readline()
        client.kill()
        client.wait()
        assert client.stdout.read() == ""  # the pipe is open until the process has ended
