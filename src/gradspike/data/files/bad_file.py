"""The error a reader raises for a file it cannot use."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BadFile:
    """A file that cannot be used; `path` as the user finds it ("archive.zip/train/3/x.png")."""

    path: str
    problem: str
