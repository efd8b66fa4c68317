"""tdBN: threshold-dependent batch norm (Zheng et al., AAAI 2021), in two parametrisations.

Both start as the same function, alpha * V_th times the normalised value, and train differently.
"""

from __future__ import annotations

import math
from typing import ClassVar

from pydantic import Field

from gradspike.norms.base import ChannelNorm
from gradspike.norms.options import NormConfig


class TdbnConfig(NormConfig):
    """`alpha` is the initial standard deviation of the current in units of V_th."""

    alpha: float = Field(default=1.0, gt=0)

    def spread(self, v_threshold: float, branches: int) -> float:
        """Initial standard deviation of one of `branches` currents whose sum has alpha * V_th."""
        return self.alpha * v_threshold / math.sqrt(branches)


class Tdbn(ChannelNorm):
    """Keeps alpha * V_th outside gamma, which starts at 1."""

    Config: ClassVar[type[TdbnConfig]] = TdbnConfig

    def __init__(self, config: TdbnConfig, channels: int, v_threshold: float, branches: int = 1) -> None:
        super().__init__(config, channels, scale=config.spread(v_threshold, branches))


class TdbnGain(ChannelNorm):
    """A plain batch norm whose gamma starts at alpha * V_th."""

    Config: ClassVar[type[TdbnConfig]] = TdbnConfig

    def __init__(self, config: TdbnConfig, channels: int, v_threshold: float, branches: int = 1) -> None:
        super().__init__(config, channels, initial_gain=config.spread(v_threshold, branches))
