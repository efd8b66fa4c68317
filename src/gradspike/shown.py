"""Paths, names and counts as the user sees them."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path

MOST_NAMES = 10


def expanded(path: str | Path) -> Path:
    """`path` with `~` and `~user` replaced as in a shell, which leaves unknown users: a folder may be called `~old`."""
    return Path(os.path.expanduser(path))


def relative(path: Path) -> Path:
    """`path`, relative if it is below the working directory."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def printable(text: str) -> str:
    """`text` on one line, with escapes for unprintable characters (control characters, names that are not UTF-8)."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text)


def shell_words(words: Iterable[str]) -> str:
    """Words to paste into a shell, on one line; unprintable characters, and letters that standard output cannot encode,
    are escaped in the quotes $'...' of bash.
    """
    return " ".join(shlex.quote(word) if _is_printable(word) else _escaped_word(word) for word in words)


def _is_printable(text: str) -> bool:
    if not text.isprintable():
        return False
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _escaped_word(word: str) -> str:
    raw = os.fsencode(word).decode("utf-8", "surrogateescape")
    return "$'" + "".join(_escaped_letter(letter) for letter in raw) + "'"


def _escaped_letter(letter: str) -> str:
    if letter in "\\'":
        return f"\\{letter}"
    if _is_printable(letter):
        return letter
    return "".join(f"\\x{byte:02x}" for byte in letter.encode("utf-8", "surrogateescape"))


def shown(path: Path) -> str:
    """`path` in a sentence or a table."""
    return printable(str(relative(path)))


def listed(names: Iterable[str], most: int = MOST_NAMES) -> str:
    """Names with commas between them; of more than `most`, the first ones and the number of the others:
    `a, b and 1,234 more`.
    """
    every = list(names)
    rest = f" and {len(every) - most:,} more" if len(every) > most else ""
    return ", ".join(every[:most]) + rest


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """A count and its noun: `1 file`, `1,234 files`. `plural` is for nouns that do not just take an s."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
