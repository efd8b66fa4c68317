"""Stops all processes of a training run at the same step."""

from __future__ import annotations

from typing import Protocol

import torch
import torch.distributed as dist
from typing_extensions import override


class Signals(Protocol):
    """Holds the number of the first signal to this process; None before any signal."""

    received: int | None


class Agreement:
    """Decides where training stops after a signal. A process that trains alone stops at the next possible point."""

    def __init__(self, signals: Signals) -> None:
        self.signals = signals

    def stops_here(self) -> bool:
        """Whether to stop at this point of training."""
        return self.signals.received is not None

    def stops_at_end(self) -> bool:
        """Whether to stop at the last point of training."""
        return self.signals.received is not None


class SharedAgreement(Agreement):
    """The same for several processes. All of them must call it at the same points.

    At each point, the processes start an all-reduce of their signals and act on the result of the previous point. That
    result had a whole step to arrive, so no process waits for it, and all of them see the same value.
    """

    def __init__(self, signals: Signals) -> None:
        super().__init__(signals)
        # Signal numbers are in host memory, which NCCL cannot reduce.
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
