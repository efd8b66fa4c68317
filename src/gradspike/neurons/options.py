"""Options of every neuron. Light: imports no torch."""

from __future__ import annotations

from typing import ClassVar

from gradspike.registry import Strict
from gradspike.touches import Touches


class NeuronConfig(Strict):
    """Options of every neuron. `detach_reset` cuts the gradient through the reset factor (1 - s[t-1])."""

    touches: ClassVar[Touches] = Touches.RESULT

    name: str
    detach_reset: bool = False
