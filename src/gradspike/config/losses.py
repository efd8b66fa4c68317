"""The losses by name. Light: imports no torch."""

from __future__ import annotations

from gradspike.config.schema import LossConfig
from gradspike.registry import Registry

LOSSES: Registry[LossConfig] = Registry(
    "loss",
    LossConfig,
    {
        "ce": "gradspike.training.losses:TimeMeanCrossEntropy",
        "tet": "gradspike.training.losses:TemporalEfficientTraining",
    },
)
