"""Counts operations and bytes instead of seconds, to find work that grows faster than its input."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable
from types import FrameType
from typing import Any


def operations(action: Callable[[], object]) -> int:
    """The number of calls, of Python's functions and of C's, that an action makes."""
    count = 0

    def note(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        action()
    finally:
        sys.setprofile(before)
    return count


def memory(action: Callable[[], Any]) -> tuple[int, int]:
    """Bytes that the result of an action keeps, and those of the peak before it."""
    tracemalloc.start()
    try:
        result = action()
        kept, peak = tracemalloc.get_traced_memory()
        del result
        return kept, peak
    finally:
        tracemalloc.stop()
