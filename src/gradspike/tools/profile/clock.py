"""Time between marks. Each interval belongs to the part of the mark before it, so parts add up to the whole."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import torch

Phase = Literal["forward", "backward", ""]


@dataclass(frozen=True)
class Part:
    """The work in an interval: its kind, its phase, and its layer if there is one."""

    kind: str
    phase: Phase = ""
    layer: str = ""

    def backward(self) -> Part:
        """The same layer's backward pass."""
        return Part(self.kind, "backward", self.layer)


class Clock:
    """Marks in order. On CUDA they are events on the stream, so the host does not wait. An interval is then time on the
    device, including idle time.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.marks: list[tuple[Part, Any]] = []

    def mark(self, part: Part) -> None:
        """Start `part`."""
        if self.device.type != "cuda":
            self.marks.append((part, time.perf_counter()))
            return
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        self.marks.append((part, event))

    def between(self, first: int, last: int) -> dict[Part, float]:
        """Seconds of each part from mark number `first` to mark number `last`."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        spent: dict[Part, float] = {}
        for (part, start), (_, end) in pairwise(self.marks[first : last + 1]):
            seconds = start.elapsed_time(end) / 1000 if self.device.type == "cuda" else end - start
            spent[part] = spent.get(part, 0.0) + seconds
        return spent
