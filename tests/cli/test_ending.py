"""The program exits when its work is done, without cleaning up its objects."""

from __future__ import annotations

import contextlib
import os
import sys
import time

import pytest

from gradspike.cli.reporting import tried
from gradspike.errors import OutputClosed, UserError
from gradspike.terminal.tables import console
from helpers.command import execute

PROGRAM = """
import atexit
import sys
import threading
import time
from gradspike.cli.ending import run_program

class Large:
    def __del__(self):
        time.sleep(60)

large = Large()

def main():
    atexit.register(lambda: print("registered"))
    threading.Thread(target=lambda: (time.sleep(0.5), print("thread"))).start()
    print("main")
    {end}

run_program(main)
"""


@pytest.mark.parametrize(
    ("end", "code"), [("return 7", 7), ("sys.exit(8)", 8), ("sys.exit('why')", 1), ("raise OSError('x')", 1)]
)
def test_a_program_ends_with_its_work_done_and_nothing_else(end: str, code: int) -> None:
    started = time.monotonic()
    done = execute(sys.executable, "-c", PROGRAM.replace("{end}", end), timeout=50)
    assert time.monotonic() < started + 30
    assert done.returncode == code
    assert done.stdout.splitlines() == ["main", "thread", "registered"]
    assert ("why" in done.stderr, "OSError: x" in done.stderr) == ("why" in end, "OSError" in end)


def test_control_characters_in_a_message_are_printed_as_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    def action() -> int:
        raise UserError("a\x1b[2J.png\nand b\r.png cannot be read")

    assert tried(action) == 1
    assert capsys.readouterr().err == "Error: a\\x1b[2J.png\nand b\\r.png cannot be read\n"


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", ">&- 2>&- <&-"])
def test_a_program_without_a_standard_stream_ends_as_with_one(closed: str) -> None:
    program = "import sys; from gradspike.cli.ending import run_program; run_program(lambda: bool(print('x')) + 7)"
    done = execute("sh", "-c", f'exec "$0" -c "$1" {closed}', sys.executable, program)
    assert done.returncode == 7
    assert done.stdout == ("" if ">&-" in closed.split() else "x\n")
    assert not done.stderr


def test_a_table_whose_reader_is_gone_ends_the_command_as_a_line_does(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with contextlib.suppress(BrokenPipeError), open(writer, "w") as broken:
        monkeypatch.setattr(sys, "stdout", broken)
        with pytest.raises(OutputClosed):
            console().print("x")
