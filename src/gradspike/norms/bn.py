"""BN: plain batch norm over batch, time and space (Ioffe & Szegedy, ICML 2015)."""

from __future__ import annotations

from typing import ClassVar

from gradspike.norms.base import ChannelNorm
from gradspike.norms.options import NormConfig


class Bn(ChannelNorm):
    """Its gain starts at 1 for every V_th and in every branch of a sum."""

    Config: ClassVar[type[NormConfig]] = NormConfig

    def __init__(self, config: NormConfig, channels: int, v_threshold: float, branches: int = 1) -> None:
        super().__init__(config, channels)
