"""Options of every norm. Light: imports no torch."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from gradspike.registry import Strict
from gradspike.touches import Touches


class NormConfig(Strict):
    """Options of every norm: those of a batch norm."""

    touches: ClassVar[Touches] = Touches.RESULT

    name: str
    momentum: float = Field(default=0.1, gt=0, le=1)
    eps: float = Field(default=1e-5, gt=0)
    sync: Literal["auto"] | bool = "auto"
    """Statistics over the batches of all ranks, as one process would have them. auto: if there are several ranks.
    false: each rank normalises its own share of the batch, and evaluation uses the first rank's statistics."""
