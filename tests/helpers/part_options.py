"""Validated options of a layer's parts, by name."""

from __future__ import annotations

from typing import Any

from gradspike.neurons.options import NeuronConfig
from gradspike.neurons.registry import NEURONS
from gradspike.norms.options import NormConfig
from gradspike.norms.registry import NORMS


def neuron_config(name: str = "plif", **options: Any) -> NeuronConfig:
    return NEURONS.config_class(name).model_validate({"name": name, **options})


def norm_config(name: str = "tdbn", **options: Any) -> NormConfig:
    return NORMS.config_class(name).model_validate({"name": name, **options})
