"""What a reader of an exported file must know: written beside the file, and inside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gradspike import __version__
from gradspike.library.load import TrainedModel


def describe_export(net: TrainedModel, run: Path, checkpoint: str, form: str) -> dict[str, Any]:
    """Origin, input and output of the exported network."""
    data = net.config.dataset
    side = data.image_size
    stored = (data.channels, side, side) if data.kind == "image" else (net.config.time_steps, data.channels, side, side)
    return {
        "format": form,
        "gradspike": __version__,
        "run": run.name,
        "checkpoint": checkpoint,
        "network": net.config.label(),
        "time_steps": net.config.time_steps,
        "class_names": list(net.class_names),
        "input": _input_of_step(net) if form == "nir" else _stored_input(net, stored),
        "output": "logits [K] of each step; the prediction is the largest of their means over the steps"
        if form == "nir"
        else "logits [T, B, K]; the prediction is the largest of their means over T",
    }


def _input_of_step(net: TrainedModel) -> dict[str, Any]:
    data = net.config.dataset
    shape = [data.channels, data.image_size, data.image_size]
    fed = "the image at every step" if data.kind == "image" else "frame t at step t"
    return {"shape": shape, "type": "float", "fed": fed, "values": _values(net)}


def _stored_input(net: TrainedModel, shape: tuple[int, ...]) -> dict[str, Any]:
    kind = "uint8" if net.config.dataset.kind == "image" else "int16"
    return {"shape": ["batch", *shape], "type": kind, "values": f"stored values; the file computes: {_values(net)}"}


def _values(net: TrainedModel) -> str:
    """How stored values become the network's input."""
    mean, std = net.statistics
    data = net.config.dataset
    if data.by_peak:
        return "x / max(1, largest value of the sample)"
    if data.divisor is None:
        return f"(x - 255 mean) / (255 std) by channel, mean = {_listed(mean)}, std = {_listed(std)}"
    return "x" if data.divisor == 1 else f"x / {data.divisor:g}"


def _listed(values: tuple[float, ...]) -> str:
    return "[" + ", ".join(f"{value:.9g}" for value in values) + "]"
