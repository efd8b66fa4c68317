"""Names and options of the methods. Light: imports no torch. A new method is a config class and one line of METHODS."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gradspike.methods.options import MIN_WIDTH, MethodConfig
from gradspike.registry import Entry, Registry


class FixedSgConfig(MethodConfig):
    """Constant threshold and constant surrogate width."""

    v_threshold: float = Field(default=1.0, gt=0)
    width: float = Field(default=1.0, ge=MIN_WIDTH)


class LsgConfig(MethodConfig):
    """LSG has no option of its own: its width follows the decay factor."""


class MpdAglConfig(MethodConfig):
    """`gamma_mean`: the width follows the norm's gain. `time_aware`: the first step has its own width. Neither: LSG."""

    gamma_mean: bool = True
    time_aware: bool = True


class DsAtgoConfig(MethodConfig):
    """DS-ATGO and its ablations; see `ds_atgo.DsAtgo`."""

    v_threshold: float = Field(default=1.0, gt=0)
    at: bool = True
    tgo: bool = True
    driver: Literal["std", "threshold"] = "std"
    threshold_source: Literal["measured", "estimated"] = "measured"
    firing_factor: float = Field(default=1.0, gt=0)
    moving_average: bool = True
    momentum: float = Field(default=0.1, gt=0, le=1)
    k: float = Field(default=1.0, gt=0)
    sync_stats: Literal["auto"] | bool = "auto"


class PsgConfig(MethodConfig):
    """`width` is where the learned width starts, `width_lr_multiplier` scales its learning rate.

    `pda_weight` (lambda) weighs the loss that pulls the potential to N(0, pda_target^2); a target of None is V_th.
    """

    width: float = Field(default=1.0, gt=MIN_WIDTH)
    width_per: Literal["layer", "channel"] = "layer"
    width_lr_multiplier: float = Field(default=1.0, ge=0)
    pda_weight: float = Field(default=0.0, ge=0)
    pda_target: float | None = Field(default=None, gt=0)
    sync_stats: Literal["auto"] | bool = "auto"


class PsgPdaConfig(PsgConfig):
    """PSG with its potential distribution loss switched on."""

    pda_weight: float = Field(default=0.01, ge=0)


METHODS: Registry[MethodConfig] = Registry(
    "method",
    {
        "fixed_sg": Entry(FixedSgConfig, "gradspike.methods.fixed_sg:FixedSg"),
        "lsg": Entry(LsgConfig, "gradspike.methods.lsg:Lsg"),
        "mpd_agl": Entry(MpdAglConfig, "gradspike.methods.mpd_agl:MpdAgl"),
        "ds_atgo": Entry(DsAtgoConfig, "gradspike.methods.ds_atgo:DsAtgo"),
        "psg": Entry(PsgConfig, "gradspike.methods.psg:Psg"),
        "psg_pda": Entry(PsgPdaConfig, "gradspike.methods.psg:Psg"),
    },
)
