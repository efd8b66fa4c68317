"""Options of the neuron. Light: imports no torch."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from gradspike.registry import Strict
from gradspike.touches import Touches


class NeuronConfig(Strict):
    """Leaky integrate-and-fire neuron with hard reset to 0.

    `lif` keeps the decay factor constant; `plif` learns one per layer (Fang et al., ICCV 2021) and starts at `decay`.
    `detach_reset` cuts the gradient that flows through the reset factor (1 - s[t-1]).
    """

    touches: ClassVar[Touches] = Touches.RESULT

    name: Literal["lif", "plif"] = "plif"
    decay: float = Field(default=0.2, gt=0, lt=1)
    detach_reset: bool = False
