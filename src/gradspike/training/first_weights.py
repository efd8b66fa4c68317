"""The network of a run without the files that gave its first weights, which a checkpoint replaces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gradspike.config.schema import ExperimentConfig

CHECKPOINT = ".ckpt"
WEIGHTS = (".pth", ".pt", ".safetensors", ".bin")
"""Usual endings of files of weights in timm's names."""


def without_first_weights(config: ExperimentConfig) -> ExperimentConfig:
    """The configuration of the same network, which reads no file of pretrained weights; the file may be gone.

    Residual blocks of a timm network with `residual=auto` stay as in timm if its weights were trained elsewhere, and a
    state dict fits either form. So the form is settled here.
    """
    model = config.model
    update: dict[str, Any] = {}
    if getattr(model, "pretrained", None) is not None:
        update["pretrained"] = None
    library, residual = getattr(model, "library", None), getattr(model, "residual", None)
    if library == "timm" and residual == "auto" and _trained_elsewhere(config):
        update["residual"] = "as_is"
    return config.model_copy(update={"model": model.model_copy(update=update)})


def _trained_elsewhere(config: ExperimentConfig) -> bool:
    """Whether the first weights were a file of weights in timm's names, not those of a run or a checkpoint."""
    if getattr(config.model, "pretrained", None) is not None:
        return True
    if config.init_from is None:
        return False
    start = Path(config.init_from)
    if start.exists():
        return start.is_file() and start.suffix != CHECKPOINT
    return start.suffix in WEIGHTS  # names of run folders may contain dots, as in width_0.5
