"""Options of the normalisation before a neuron. Light: imports no torch."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from gradspike.registry import Strict
from gradspike.touches import Touches


class NormConfig(Strict):
    """Threshold-dependent batch norm (tdBN; Zheng et al., AAAI 2021) over batch, time and space.

    `tdbn` keeps the factor alpha * V_th outside gamma, which starts at 1; `tdbn_gain` is a plain batch norm whose
    gamma starts at alpha * V_th. Both start as the same function and train differently.
    """

    touches: ClassVar[Touches] = Touches.RESULT

    name: Literal["tdbn", "tdbn_gain"] = "tdbn"
    alpha: float = Field(default=1.0, gt=0)
    momentum: float = Field(default=0.1, gt=0, le=1)
    eps: float = Field(default=1e-5, gt=0)
    sync: Literal["auto"] | bool = "auto"
    """Batch statistics over the batches of all ranks, as one process would have them. auto: wherever there are several
    ranks. false: each rank normalises its own share of the batch, and evaluation uses the first rank's statistics."""
