"""Paths and names as they are shown to a person."""

from __future__ import annotations

from pathlib import Path


def relative(path: Path) -> Path:
    """`path`, relative if it lies below the working directory."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def printable(text: str) -> str:
    """`text` on one line, with escapes for what cannot be shown (control characters, names that are not UTF-8)."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text)


def shown(path: Path) -> str:
    """`path` in a sentence or a table."""
    return printable(str(relative(path)))
