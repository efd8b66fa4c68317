"""The interface between `size.py` and what it measures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Part:
    """full: how many, at full size. make(folder, count) makes them; steps[name](folder, count) are measured."""

    full: int
    make: Callable[[Path, int], None]
    steps: dict[str, Callable[[Path, int], None]]
    part_size: int = 0
    """Samples per part of a preparation."""
