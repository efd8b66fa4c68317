"""What one forward pass of a network collects besides its output: the methods' losses, and its first layer's input."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor

ValueT = TypeVar("ValueT")


@dataclass
class LossCollector:
    """Losses that layers added during one forward pass."""

    losses: list[Tensor] = field(default_factory=list)

    def mean(self) -> Tensor | float:
        """Average over the layers that added one; 0.0 if none did."""
        return torch.stack(self.losses).mean() if self.losses else 0.0


LOSSES: ContextVar[LossCollector | None] = ContextVar("gradspike_loss_collector", default=None)


def collect_losses() -> AbstractContextManager[LossCollector]:
    """Collect the methods' losses in forward passes inside the block. Outside, layers do not compute them.

    with collect_losses() as extra:
        logits = model(batch)
    loss = criterion(logits) + extra.mean()
    """
    return _held(LOSSES, LossCollector())


@dataclass
class FirstLayerWatch:
    """The input of the spiking layer that a forward pass calls first.

    `sums` [B]: each sample's input, summed over all steps; None before the first call. A sum is finite exactly if the
    sample's values are, and stays on the device. Spikes cannot show this, because u >= theta is false for NaN.
    """

    sums: Tensor | None = None

    def see(self, y: Tensor, steps: int) -> None:
        """Record the input [steps * B, C, *space] of a layer, unless one is already recorded."""
        if self.sums is None:
            # In float32, because a sum in float16 overflows at 65504.
            self.sums = y.detach().sum(tuple(range(1, y.ndim)), dtype=torch.float32).view(steps, -1).sum(0)


FIRST_LAYER: ContextVar[FirstLayerWatch | None] = ContextVar("gradspike_first_layer_watch", default=None)


def watch_first_layer() -> AbstractContextManager[FirstLayerWatch]:
    """Record the input of the first spiking layer in the forward pass inside the block."""
    return _held(FIRST_LAYER, FirstLayerWatch())


@contextmanager
def _held(variable: ContextVar[ValueT | None], value: ValueT) -> Iterator[ValueT]:
    token = variable.set(value)
    try:
        yield value
    finally:
        variable.reset(token)
