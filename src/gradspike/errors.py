"""Errors that are meant for the person who typed the command: one message, no traceback, exit code not 0."""

from __future__ import annotations

from collections.abc import Iterable


class UserError(Exception):
    """Something the user can mend. `exit_code` is what the command returns to the shell, `prefix` begins its message
    there.
    """

    exit_code = 1
    prefix = "Error: "


class ConfigError(UserError):
    """The command line or a configuration file asks for something that does not exist or is not allowed."""

    exit_code = 2


def nearest(word: str, allowed: Iterable[str]) -> str | None:
    """The allowed word that looks most like `word`, or None when nothing comes close.

    Dotted keys are compared among their siblings first (`optimizer.lrr` finds `optimizer.lr`), then by their last part,
    so that `optimiser.lr` and a bare `lr` find it too.
    """
    import difflib

    candidates = list(allowed)
    parent, _, leaf = word.rpartition(".")
    siblings = {
        candidate.rpartition(".")[2]: candidate for candidate in candidates if candidate.rpartition(".")[0] == parent
    }
    close = difflib.get_close_matches(leaf, siblings, n=1, cutoff=0.6)
    if close:
        return siblings[close[0]]
    alike = [key for key in candidates if difflib.SequenceMatcher(None, leaf, key.rpartition(".")[2]).ratio() >= 0.75]
    return max(alike, key=lambda key: difflib.SequenceMatcher(None, word, key).ratio(), default=None)


def did_you_mean(word: str, allowed: Iterable[str]) -> str:
    """` Did you mean 'x'?` with its leading space, or an empty string."""
    match = nearest(word, allowed)
    return f" Did you mean '{match}'?" if match is not None else ""
