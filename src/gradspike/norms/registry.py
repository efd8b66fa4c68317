"""The norms by name. Light: imports no torch."""

from __future__ import annotations

from gradspike.norms.options import NormConfig
from gradspike.registry import Registry

NORMS: Registry[NormConfig] = Registry(
    "norm",
    NormConfig,
    {
        "bn": "gradspike.norms.bn:Bn",
        "mpbn": "gradspike.norms.mpbn:Mpbn",
        "tab": "gradspike.norms.tab:Tab",
        "tdbn": "gradspike.norms.tdbn:Tdbn",
        "tdbn_gain": "gradspike.norms.tdbn:TdbnGain",
        "tebn": "gradspike.norms.tebn:Tebn",
    },
)
