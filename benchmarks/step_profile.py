"""What a profile of a training step says: memory over time, and time that is covered."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

MEASURED = "measured step"
"""The name of the step in the profile."""


def allocations(profiler: Any) -> tuple[list[int], list[int]]:
    """Bytes allocated (positive) and released (negative), in order of time: before the measured step, and in it.

    Releases count only for memory allocated under the profiler. The profiler may also have a size for another block, if
    an earlier profile saw one at the same address.
    """
    from torch._C._profiler import _EventType

    todo = list(profiler.profiler.kineto_results.experimental_event_tree())
    events = []
    while todo:
        events.append(todo.pop())
        todo += events[-1].children
    begin = next(event.start_time_ns for event in events if event.name == MEASURED)
    changes: tuple[list[int], list[int]] = ([], [])
    held = set()
    for event in sorted(events, key=lambda event: event.start_time_ns):
        if event.tag != _EventType.Allocation:
            continue
        pointer, size = event.extra_fields.ptr, event.extra_fields.alloc_size
        if size > 0:
            held.add(pointer)
        elif pointer not in held:
            continue
        else:
            held.remove(pointer)
        changes[event.start_time_ns >= begin].append(size)
    return changes


def covered(intervals: Iterable[tuple[float, float]]) -> float:
    """The length of the union of intervals."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(intervals):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def highest_sum(before: list[int], changes: list[int]) -> int:
    """The maximum of the running sum from the end of `before` to the end of `changes`."""
    level = highest = sum(before)
    for change in changes:
        level += change
        highest = max(highest, level)
    return highest
