"""Writes the file of a format, and its description beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gradspike.json_text import to_json
from gradspike.library.load import TrainedModel
from gradspike.runs.files import json_file, write_by, write_output


def write_export(net: TrainedModel, path: Path, form: str, described: Mapping[str, Any]) -> tuple[Path, Path]:
    """Write the network as `form`: nir, onnx or pt2. Returns the file, which has the description inside, and the
    description beside it, `<file>.json`.

    Raises ConfigError for a network that the format cannot describe, UserError if a file cannot be written.
    """
    write_by(path, lambda file: WRITERS[form](net, file, to_json(described)), "out=")
    beside = path.with_suffix(f"{path.suffix}.json")
    write_output(beside, json_file(described), "out=")
    return path, beside


def _write_nir(net: TrainedModel, path: Path, description: str) -> None:
    import nir

    from gradspike.tools.export.graph import nir_graph
    from gradspike.tools.export.neurons import DT
    from gradspike.tools.export.whole import sample_inputs

    inputs = net.transform(sample_inputs(net, batch=1))
    x = inputs[0] if net.config.dataset.kind == "frames" else inputs
    metadata = {"gradspike": description, "dt": DT, "time_steps": net.config.time_steps}
    nir.write(path, nir_graph(net.model, x, metadata))


def _write_onnx(net: TrainedModel, path: Path, description: str) -> None:
    from gradspike.tools.export.program import write_onnx

    write_onnx(net, path, description)


def _write_pt2(net: TrainedModel, path: Path, description: str) -> None:
    from gradspike.tools.export.program import write_pt2

    write_pt2(net, path, description)


WRITERS: Mapping[str, Callable[[TrainedModel, Path, str], None]] = {
    "nir": _write_nir,
    "onnx": _write_onnx,
    "pt2": _write_pt2,
}
