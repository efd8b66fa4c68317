"""A file that cannot be used, and why."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BadFile:
    """A file that cannot be used. `path` is what the user sees: "archive.zip/train/3/x.png"."""

    path: str
    problem: str
