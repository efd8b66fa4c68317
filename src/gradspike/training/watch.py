"""Detects within seconds that a rank has died, and reports which one and why.

Each rank keeps a connection to the first rank, which the system closes when the process ends for any reason. No rank
has to answer in time, so a rank may be slow, suspended or swapped out.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from torch.distributed import Store  # type: ignore[attr-defined]

from gradspike.errors import Interrupted, UserError
from gradspike.training.place import Place

KEY = "gradspike/watch"
DONE, ENDED = "done", "ended"
"""Final messages: DONE from a rank that finishes normally; ENDED, with an exit code, from the first rank when it ends
the training."""
SECONDS_FOR_REASON = 1.0
"""How long the first rank waits for the exit code or final message of a rank whose connection has closed."""
SECONDS_TO_LEAVE = 5.0
"""How long a rank may continue after another one has died, because a collective operation can wait forever."""

STOPPING = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")


class RankLost(UserError):
    """A rank has died, which ends the training."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Watch:
    """One rank's watch over the others.

    on_lost: called with the error on the first rank if it must exit because a collective operation does not return.
    """

    def __init__(self, place: Place, on_lost: Callable[[UserError | Interrupted], None]) -> None:
        self.place = place
        self.children: list[subprocess.Popen[bytes]] = []
        self._on_lost = on_lost
        self._lost: UserError | Interrupted | None = None
        self._closed = threading.Event()
        self._noticed = threading.Event()
        self._ended = threading.Event()
        self._sockets: list[socket.socket] = []

    def start(self, store: Store) -> None:
        """Connect the ranks, all of which must have joined. store: their shared store."""
        # Forked loader processes would keep the connections of a dead rank open.
        os.register_at_fork(after_in_child=self._drop)
        if self.place.rank == 0:
            dual = socket.has_dualstack_ipv6()
            family = socket.AF_INET6 if dual else socket.AF_INET
            listening = socket.create_server(("", 0), family=family, dualstack_ipv6=dual)
            store.set(KEY, str(listening.getsockname()[1]))
            self._sockets.append(listening)
            self._run(self._attend)
        else:
            first = socket.create_connection((self.place.address, int(store.get(KEY))), timeout=60)
            first.settimeout(None)
            _keep_alive(first)
            first.sendall(f"{self.place.rank}\n".encode())
            self._sockets.append(first)
            self._run(self._follow)

    def check_children(self) -> None:
        """Raise RankLost or Interrupted if a process that this one started has ended."""
        for local_rank, child in enumerate(self.children, 1):
            if child.poll() is not None:
                raise _loss(self.place.rank + local_rank, child.returncode, "")

    def lost(self, error: BaseException) -> UserError | Interrupted | None:
        """The error of the dead rank that caused `error`; None if `error` is not a broken connection."""
        if not _is_broken_connection(error):
            return None
        self._noticed.wait(SECONDS_TO_LEAVE - 1)
        if self._lost is not None:
            return self._lost
        try:
            self.check_children()
        except (RankLost, Interrupted) as lost:
            return lost
        return UserError(f"The connection between the ranks broke ({_first_line(error)}).")

    def leave(self, error: Exception) -> NoReturn:
        """End this process, which is not the first, after sending the reason to the first."""
        code = getattr(error, "exit_code", 1)
        if not self._sockets:
            raise error  # before the ranks have met
        if _is_broken_connection(error):
            self._ended.wait(SECONDS_TO_LEAVE)  # until `_follow` ends this process; the first one reports the reason
        else:
            if not isinstance(error, UserError):
                traceback.print_exception(error)
            self.close(f"{code} {_first_line(error)}")
        sys.stdout.flush()
        os._exit(code)

    def close(self, words: str = DONE) -> None:
        """Stop watching and send `words`. Unless they are DONE, the first rank kills the processes that it started."""
        self._closed.set()
        for connection in self._sockets[1:] if self.place.rank == 0 else self._sockets:
            with contextlib.suppress(OSError):
                connection.sendall(f"{words}\n".encode())
                connection.shutdown(socket.SHUT_WR)
        if self.place.rank == 0 and words != DONE:
            self._end_children()

    def _run(self, target: Callable[[], None]) -> None:
        threading.Thread(target=target, daemon=True, name="gradspike-watch").start()

    def _end_children(self) -> None:
        for child in self.children:
            child.kill()

    def _drop(self) -> None:
        for connection in self._sockets:
            connection.close()
        self._sockets = []

    def _follow(self) -> None:
        """On other ranks than the first: exit when the first one has ended."""
        words = _read(self._sockets[0])
        # A rank that is already leaving, because all ranks agreed to stop, may do so.
        if DONE in words or self._closed.wait(SECONDS_FOR_REASON):
            self._ended.set()
            return
        if ENDED not in words and self.place.rank == 1:  # other ranks would print the same
            print("Error: Rank 0 died, and the training with it.", file=sys.stderr, flush=True)
        code = words.partition(ENDED)[2].strip()
        os._exit(int(code) if code.isdecimal() else 1)

    def _attend(self) -> None:
        """On the first rank: read the messages of all other ranks."""
        listening = self._sockets[0]
        said: dict[int, str] = {}
        with selectors.DefaultSelector() as waiting:
            waiting.register(listening, selectors.EVENT_READ)
            while not self._closed.is_set() and len(said) < self.place.world_size - 1:
                for key, _ in waiting.select(0.2):
                    if key.fileobj is listening:
                        connection, _ = listening.accept()
                        _keep_alive(connection)
                        self._sockets.append(connection)
                        waiting.register(connection, selectors.EVENT_READ, [""])
                        continue
                    assert isinstance(key.fileobj, socket.socket)
                    text = _received(key.fileobj)
                    key.data[0] += text
                    if not text:
                        waiting.unregister(key.fileobj)
                        rank, _, words = key.data[0].partition("\n")
                        if not rank.isdecimal():
                            continue  # not a connection of a rank
                        said[int(rank)] = words
                        if DONE not in words:
                            self._end(int(rank), words)
                            return

    def _end(self, rank: int, words: str) -> None:
        """Record the loss of a rank, and end this process if it does not stop by itself."""
        if self._closed.is_set():
            return
        self._lost = _loss(rank, self._exit_code(rank), words)
        self._noticed.set()
        if self._closed.wait(SECONDS_TO_LEAVE):
            return
        self._on_lost(self._lost)
        self._end_children()
        print(f"{'' if isinstance(self._lost, Interrupted) else 'Error: '}{self._lost}", file=sys.stderr, flush=True)
        os._exit(self._lost.exit_code)

    def _exit_code(self, rank: int) -> int | None:
        """The exit code of a rank that this process started; None if unknown."""
        local_rank = rank - self.place.rank
        if local_rank > len(self.children):
            return None
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.children[local_rank - 1].wait(SECONDS_FOR_REASON)
        return None


@contextmanager
def watched(watch: Watch) -> Iterator[None]:
    """Train with other ranks. Raises RankLost or Interrupted if one is lost, instead of the resulting error.

    On other ranks than the first, an error ends the process, and the first rank reports it.
    """
    try:
        yield
    except Exception as error:
        if watch.place.world_size == 1:
            raise
        if watch.place.rank:
            watch.leave(error)
        lost = watch.lost(error)
        watch.close(f"{ENDED} {getattr(lost or error, 'exit_code', 1)}")
        if lost is not None:
            raise lost from error
        raise
    except BaseException as error:
        watch.close(DONE if watch.place.rank else f"{ENDED} {getattr(error, 'exit_code', 1)}")
        raise
    watch.close()


def _loss(rank: int, code: int | None, words: str) -> UserError | Interrupted:
    """The error for a rank that ended with this exit code (None if unknown) and these final messages."""
    reported, _, reason = words.strip().partition(" ")
    if reason:
        return RankLost(f"Rank {rank} failed: {reason}", int(reported))
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        if name in STOPPING:
            return Interrupted(-code, rank=rank)
        memory = ", which the system also does when memory runs out" if name == "SIGKILL" else ""
        return RankLost(f"Rank {rank} was killed by {name}{memory}.", 128 - code)
    if code is not None:
        return RankLost(f"Rank {rank} ended with exit code {code}.", code or 1)
    return RankLost(f"Rank {rank} died without reporting an error: it was killed, or its machine cannot be reached.", 1)


def _is_broken_connection(error: BaseException) -> bool:
    """Whether an error only says that other ranks cannot be reached."""
    text = f"{type(error).__name__} {error}"
    return isinstance(error, RuntimeError) and bool(
        re.search(r"gloo|NCCL|ncclRemoteError|Dist(Backend|Network|Store)Error|[Cc]onnection (closed|reset)", text)
    )


def _first_line(error: BaseException) -> str:
    line = str(error).strip().partition("\n")[0]
    return line if isinstance(error, UserError) else f"{type(error).__name__}: {line}"


def _keep_alive(connection: socket.socket) -> None:
    """Detect within ten seconds that the other machine is gone."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 3), ("TCP_KEEPINTVL", 2), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _received(connection: socket.socket) -> str:
    """The data received; empty if the other end is closed."""
    try:
        return connection.recv(4096).decode(errors="replace")
    except OSError:
        return ""


def _read(connection: socket.socket) -> str:
    """All data until the other end is closed."""
    said = ""
    while text := _received(connection):
        said += text
    return said
