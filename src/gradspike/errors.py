"""Errors for the user: one message, no traceback, a non-zero exit code."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path

REFUSED = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENAMETOOLONG, errno.ELOOP),
    *(errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN, errno.ENODEV, errno.ENXIO),
}
"""Codes with which the system or a disk refuses a file, whatever the program does with it."""


class UserError(Exception):
    """An error that the user can fix. `exit_code` is what the command returns to the shell."""

    exit_code = 1


class ConfigError(UserError):
    """The command line or a configuration file asks for something that does not exist or is not allowed."""

    exit_code = 2


class Interrupted(BaseException):
    """A signal stopped the command. `exit_code` is 128 + the signal's number, as shells expect.

    saved: the state was saved before. rank: the signal ended that rank of several, and the training with it.

    Not an Exception, so that nothing that carries on after errors (the other trials of a multirun) carries on after it.
    """

    def __init__(self, signum: int, saved: bool = False, rank: int | None = None) -> None:
        whom = "Stopped" if rank is None else f"Stopped because rank {rank} was ended"
        state = "after saving" if saved else "without saving"
        super().__init__(f"{whom} by {signal.Signals(signum).name} {state} its state.")
        self.exit_code = 128 + signum


class OutOfTime(Interrupted):
    """The hours of `trainer.max_hours` are over. `exit_code` is EX_TEMPFAIL of sysexits.h: try again later."""

    def __init__(self, hours: float) -> None:
        BaseException.__init__(self, f"Stopped after trainer.max_hours={hours:g} after saving its state.")
        self.exit_code = 75


class OutputClosed(BaseException):
    """The reader of the command's output is gone. Not an Exception, for the same reason."""


def first_line(error: BaseException) -> str:
    """The first line of an error that is not empty, or the name of its class."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def refused(error: BaseException) -> str | None:
    """The message for a file or folder that the system or the disk refuses; None for any other error."""
    if not isinstance(error, OSError) or error.errno not in REFUSED or not isinstance(error.filename, str | bytes):
        return None
    return f"{os.fsdecode(error.filename)}: {error.strerror}."


def nearest(word: str, allowed: Iterable[str]) -> str | None:
    """The allowed word most similar to `word`, or None if none is close.

    A dotted key in an existing section is compared only with the keys of that section (`optimizer.lrr` finds
    `optimizer.lr`). Otherwise last parts are compared, so that `optimiser.lr` and a bare `lr` find it too.
    """
    import difflib

    candidates = list(allowed)
    parent, _, leaf = word.rpartition(".")
    siblings = {key.rpartition(".")[2]: key for key in candidates if key.rpartition(".")[0] == parent}
    close = difflib.get_close_matches(leaf, siblings, n=1, cutoff=0.6)
    if close:
        return siblings[close[0]]
    if parent and siblings:
        return None
    alike = [key for key in candidates if difflib.SequenceMatcher(None, leaf, key.rpartition(".")[2]).ratio() >= 0.75]
    return max(alike, key=lambda key: difflib.SequenceMatcher(None, word, key).ratio(), default=None)


def did_you_mean(word: str, allowed: Iterable[str]) -> str:
    """` Did you mean 'x'?` with its leading space, or an empty string."""
    match = nearest(word, allowed)
    return f" Did you mean '{match}'?" if match is not None else ""


def unknown(kind: str, word: str, allowed: Iterable[str]) -> str:
    """The message for an unknown name: `unknown <kind> '<word>'. Did you mean 'x'? Allowed: a, b, c`."""
    names = sorted(allowed)
    listed = f" Allowed: {', '.join(names)}" if names else ""
    return f"unknown {kind} '{word}'.{did_you_mean(word, names)}{listed}"


def unknown_path(kind: str, path: Path) -> str:
    """The message for a missing file or folder, with the most similar name beside it."""
    folder = path.parent
    close = nearest(path.name, (one.name for one in folder.iterdir())) if folder.is_dir() else None
    return f"unknown {kind} '{path}'." + (f" Did you mean '{folder / close}'?" if close is not None else "")


def causes(error: BaseException) -> Iterator[BaseException]:
    """An error, then those behind it."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or one.__context__
