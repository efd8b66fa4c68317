"""One command with all its processes, seen from outside. Linux only (/proc)."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from helpers.command import variables_of
from helpers.forks import ForkServer

MARK = "STORM_SESSION"
"""A variable that every process of a session inherits, whoever its parent is later."""
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
SECONDS_TO_DIE = 10.0
SECONDS_OF_SILENCE = 60.0
SECONDS_TO_VANISH = 30.0
SENTENCES = ("Error: ", "Stopped", "Interrupted.")


@dataclass(frozen=True)
class Death:
    """What was seen after a signal.

    code: exit code of the first process, negative for a signal; None if it hung, and the storm killed it. seconds:
    until no process was left. orphans: processes that were left too long. sentence: the last line printed.
    """

    code: int | None
    seconds: float
    orphans: int
    sentence: str
    traceback: bool

    def mute(self, signum: signal.Signals) -> bool:
        """Whether neither the exit code nor the last line says why the run ended."""
        if self.code in (None, 0):
            return False
        return self.code not in (-signum, 128 + signum) and not self.sentence.startswith(SENTENCES)


class Session:
    """A command in `folder`, in a process group of its own. It prints into `log`."""

    def __init__(self, command: Sequence[str], folder: Path, log: Path) -> None:
        self._mark = _new_mark()
        self._log = log
        with log.open("wb") as output:
            self.first = subprocess.Popen(
                command,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=variables_of(OMP_NUM_THREADS="1", **{MARK: self._mark}),
                start_new_session=True,
                preexec_fn=_listen,
            )

    def processes(self) -> list[int]:
        """Ids of the processes of this session that live, whatever has become of their parents."""
        wanted, found = f"{MARK}={self._mark}\0".encode(), []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it has just ended, or belongs to somebody else
                state, _, _, session = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
                own = int(folder.name) == os.getpid()
                if (
                    state != "Z"
                    and not own
                    and (int(session) == self.first.pid or wanted in (folder / "environ").read_bytes())
                ):
                    found.append(int(folder.name))
        return found

    def ranks(self) -> dict[int, int]:
        """Process ids by rank: the first process, and those that it has started as ranks."""
        found = {0: self.first.pid} if self.first.poll() is None else {}
        for process in self.processes():
            with contextlib.suppress(OSError, ValueError):
                variables = Path(f"/proc/{process}/environ").read_bytes().decode(errors="replace").split("\0")
                parent = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
                if parent == self.first.pid and f"GRADSPIKE_PARENT={parent}" in variables:
                    found[int(next(one for one in variables if one.startswith("LOCAL_RANK="))[11:])] = process
        return found

    def output(self) -> str:
        return self._log.read_text(errors="replace")

    def end(self) -> None:
        """Kill what is left of it, and wait until it is gone, which takes a moment after SIGKILL."""
        deadline = time.monotonic() + SECONDS_TO_VANISH
        while (left := self.processes()) and time.monotonic() < deadline:
            for process in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            time.sleep(0.01)
        self.first.wait()

    def watch_death(self, signum: signal.Signals, progress: Callable[[], int]) -> Death:
        """Wait for the end of all processes after `signum` was sent. Ends with none of them left.

        SIGKILL leaves no process anything to finish, so all must be gone SECONDS_TO_DIE later. After other signals, the
        first process may finish a step and save, or go on if the signal was not for it; the others must be gone
        SECONDS_TO_DIE after it. It hangs if what `progress` returns does not change for SECONDS_OF_SILENCE.
        """
        sent = changed = time.monotonic()
        size, ended, orphans = progress(), None, 0
        while True:
            now = time.monotonic()
            if ended is None and self.first.poll() is not None:
                ended = now
            alive = self.processes()
            if ended is not None and not alive:
                break
            since = sent if signum == signal.SIGKILL else ended
            if not orphans and since is not None and now > since + SECONDS_TO_DIE:
                orphans = len(alive)
            if (found := progress()) != size:
                size, changed = found, now
            if now > max(sent, changed) + SECONDS_OF_SILENCE:
                break
            time.sleep(0.05)
        seconds = time.monotonic() - sent
        code = self.first.poll()
        self.end()
        output = self.output()
        lines = [line for line in output.splitlines() if line.strip()]
        return Death(code, seconds, orphans, lines[-1] if lines else "", "Traceback" in output)


class ForkedSession(Session):
    """`gradspike <words>` as forks of a process that has imported everything (`helpers.forks`)."""

    def __init__(self, server: ForkServer, words: Sequence[str], folder: Path, ranks: int) -> None:
        self.first = server.start(*words, cwd=folder, start_new_session=True, ranks=ranks)  # type: ignore[assignment]
        self._mark = _new_mark()  # in no environment: the session's id alone finds its processes
        self._read = b""
        os.set_blocking(self.first.stdout.fileno(), False)  # type: ignore[union-attr]

    def ranks(self) -> dict[int, int]:
        found = {0: self.first.pid} if self.first.poll() is None else {}
        for process in self.processes():
            with contextlib.suppress(OSError):
                name = Path(f"/proc/{process}/comm").read_text().strip()
                if name.startswith("rank"):
                    found[int(name[4:])] = process
        return found

    def output(self) -> str:
        with contextlib.suppress(BlockingIOError):
            while more := os.read(self.first.stdout.fileno(), 65536):  # type: ignore[union-attr]
                self._read += more
        return self._read.decode(errors="replace")


def _new_mark() -> str:
    """A word of 32 letters that no other process has in its environment."""
    return secrets.token_hex(16)


def _listen() -> None:
    """Undo what nohup or a shell's background made this process ignore."""
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, signal.SIG_DFL)
