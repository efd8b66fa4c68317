"""gradspike: spiking neural networks with pluggable surrogate-gradient methods, compared fairly.

The names below are the library (docs/library.md). They are imported when they are used, because torch takes seconds.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradspike.collected import collect_losses
    from gradspike.config.compose import load_config
    from gradspike.data.datamodule import DataModule
    from gradspike.library.layers import SpikingLayers
    from gradspike.library.load import TrainedModel, load
    from gradspike.library.predict import Prediction
    from gradspike.library.rates import firing_rates
    from gradspike.library.stream import Stream, StreamState
    from gradspike.methods.base import set_progress
    from gradspike.models.blocks import fold_time, unfold_time
    from gradspike.training.build import build_data, build_model
    from gradspike.training.module import SpikingClassifier

__version__ = "0.1.0"

_LIBRARY = {
    "load_config": "config.compose",
    "DataModule": "data.datamodule",
    "SpikingLayers": "library.layers",
    "TrainedModel": "library.load",
    "load": "library.load",
    "Prediction": "library.predict",
    "firing_rates": "library.rates",
    "Stream": "library.stream",
    "StreamState": "library.stream",
    "set_progress": "methods.base",
    "fold_time": "models.blocks",
    "unfold_time": "models.blocks",
    "collect_losses": "collected",
    "build_data": "training.build",
    "build_model": "training.build",
    "SpikingClassifier": "training.module",
}

__all__ = [
    "DataModule",
    "Prediction",
    "SpikingClassifier",
    "SpikingLayers",
    "Stream",
    "StreamState",
    "TrainedModel",
    "__version__",
    "build_data",
    "build_model",
    "collect_losses",
    "firing_rates",
    "fold_time",
    "load",
    "load_config",
    "set_progress",
    "unfold_time",
]


def __getattr__(name: str) -> Any:
    if name not in _LIBRARY:
        raise AttributeError(f"module 'gradspike' has no attribute '{name}'")
    return getattr(importlib.import_module(f"gradspike.{_LIBRARY[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LIBRARY})
