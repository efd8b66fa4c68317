"""Processes that train together stop at the same step."""

from __future__ import annotations

from typing import Protocol

import torch
import torch.distributed as dist
from typing_extensions import override


class Signals(Protocol):
    """Holds the number of the first signal to this process, None before it."""

    received: int | None


class Agreement:
    """Where training stops after a signal. A process that trains alone stops at the next point where it can."""

    def __init__(self, signals: Signals) -> None:
        self.signals = signals

    def stops_here(self) -> bool:
        """Whether to stop at this point of training."""
        return self.signals.received is not None

    def stops_at_end(self) -> bool:
        """Whether to stop at the last point of training."""
        return self.signals.received is not None


class SharedAgreement(Agreement):
    """The same for several processes, which all call it at the same points.

    At each point the processes start to add up their signals, and act on the sum of the point before. That sum had a
    whole step's time to arrive, so nobody waits for it, and all of them see the same.
    """

    def __init__(self, signals: Signals) -> None:
        super().__init__(signals)
        # Signals are in the memory of the host, which NCCL does not read.
        group = dist.new_group(backend="gloo")
        assert isinstance(group, dist.ProcessGroup)
        self._group = group
        self._found: tuple[torch.Tensor, dist.Work] | None = None

    @override
    def stops_here(self) -> bool:
        before = self._found
        found = torch.tensor([self.signals.received or 0])
        work = dist.all_reduce(found, dist.ReduceOp.MAX, group=self._group, async_op=True)
        assert work is not None
        self._found = found, work
        return before is not None and self._known(*before)

    @override
    def stops_at_end(self) -> bool:
        self.stops_here()
        assert self._found is not None
        return self._known(*self._found)

    def _known(self, found: torch.Tensor, work: dist.Work) -> bool:
        work.wait()
        self.signals.received = self.signals.received or int(found) or None
        return bool(found)
