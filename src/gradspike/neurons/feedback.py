"""Weights by which a layer's output reaches its own currents one time step later."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override


class Feedback(nn.Linear):
    """From what a layer emits at one step, [B, C, *space], to what it adds to the current of the next: V s.

    At each position, every channel reaches every channel. Without bias. The weights start uniform in +-scale / sqrt(C),
    torch's choice for a linear layer.
    """

    def __init__(self, channels: int, scale: float = 1.0) -> None:
        super().__init__(channels, channels, bias=False)
        self.weight.data.mul_(scale)

    @override
    def forward(self, emitted: Tensor) -> Tensor:
        return F.linear(emitted.to(self.weight.dtype).movedim(1, -1), self.weight).movedim(-1, 1)
