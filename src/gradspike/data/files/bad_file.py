"""A file that cannot be used, with the reason."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BadFile:
    """A file that cannot be used. `path` is the path shown to the user: "archive.zip/train/3/x.png"."""

    path: str
    problem: str
