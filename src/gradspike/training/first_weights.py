"""The network of a run without the files that gave its first weights, which a checkpoint replaces."""

from __future__ import annotations

from pathlib import Path

from gradspike.config.schema import ExperimentConfig

CHECKPOINT = ".ckpt"


def without_first_weights(config: ExperimentConfig) -> ExperimentConfig:
    """The configuration of the same network, which reads no file of pretrained weights; the file may be gone.

    Residual blocks of a timm network with `residual=auto` stay as in timm if its weights were trained elsewhere, and a
    state dict fits either form. So the form is settled here.
    """
    model = config.model
    if getattr(model, "library", None) != "timm":
        return config
    update = {"pretrained": None}
    if getattr(model, "residual", None) == "auto" and _trained_elsewhere(config):
        update["residual"] = "as_is"  # type: ignore[assignment]
    return config.model_copy(update={"model": model.model_copy(update=update)})


def _trained_elsewhere(config: ExperimentConfig) -> bool:
    """Whether the first weights were a file of weights in timm's names, not those of a run or a checkpoint."""
    if getattr(config.model, "pretrained", None) is not None:
        return True
    start = None if config.init_from is None else Path(config.init_from)
    return start is not None and start.suffix not in ("", CHECKPOINT) and not start.is_dir()
