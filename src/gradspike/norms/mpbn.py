"""MPBN: batch norm of the membrane potential (Guo et al., ICCV 2023)."""

from __future__ import annotations

from typing import ClassVar

from gradspike.norms.base import ChannelNorm
from gradspike.norms.options import NormConfig


class Mpbn(ChannelNorm):
    """A plain batch norm of the current, and one of the membrane potential, between charge and fire:

        s[t] = 1 if BN(u[t]) meets the threshold; the reset acts on u[t]

    The norm of the potential is shared by all steps, and each step is a batch of its own: it has its own statistics,
    and updates the running ones. A norm without a neuron, as in a residual branch, is the first alone; a neuron without
    a norm of its current has the second alone.
    """

    Config: ClassVar[type[NormConfig]] = NormConfig
    on_potential: ClassVar[bool] = True

    def __init__(self, config: NormConfig, channels: int, v_threshold: float, branches: int = 1) -> None:
        super().__init__(config, channels)
