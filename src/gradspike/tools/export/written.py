"""Writes the file of a format, and its description beside it."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gradspike.errors import ConfigError, UserError
from gradspike.exhausted import not_written
from gradspike.json_text import to_json
from gradspike.library.load import TrainedModel
from gradspike.runs.files import json_file, write_output


def write_export(net: TrainedModel, path: Path, form: str, described: Mapping[str, Any]) -> tuple[Path, Path]:
    """Write the network as `form`: nir, onnx or pt2. Returns the file, which has the description inside, and the
    description beside it, `<file>.json`.

    Raises ConfigError for a network that the format cannot describe, and for a file that another program has written in
    the meantime; UserError if a file cannot be written.
    """
    _write_new(path, CONTENTS[form](net, to_json(described)))
    beside = path.with_suffix(f"{path.suffix}.json")
    try:
        _write_new(beside, json_file(described))
    except UserError:
        path.unlink()  # both or none: the next export refuses an existing file
        raise
    return path, beside


def _write_new(path: Path, content: str | bytes) -> None:
    """Write a file that does not exist. Of two exports to one file, only the first to get here writes it."""
    ours = False
    try:
        path.open("xb").close()
        ours = True
    except FileExistsError as error:
        if path.is_file():
            raise ConfigError(f"out={path}: exists by now. Delete it, or choose another out=.") from error
    except OSError as error:
        raise not_written(path, error, named="out=") from error
    try:
        write_output(path, content, "out=")
    except BaseException:
        if ours:
            path.unlink(missing_ok=True)
        raise


def _nir(net: TrainedModel, description: str) -> bytes:
    import nir

    from gradspike.tools.export.graph import nir_graph
    from gradspike.tools.export.neurons import DT
    from gradspike.tools.export.whole import sample_inputs

    inputs = net.transform(sample_inputs(net, batch=1))
    x = inputs[0] if net.config.dataset.kind == "frames" else inputs
    metadata = {"gradspike": description, "dt": DT, "time_steps": net.config.time_steps}
    file = io.BytesIO()
    nir.write(file, nir_graph(net.model, x, metadata))
    return file.getvalue()


def _onnx(net: TrainedModel, description: str) -> bytes:
    from gradspike.tools.export.program import onnx_file

    return onnx_file(net, description)


def _pt2(net: TrainedModel, description: str) -> bytes:
    from gradspike.tools.export.program import pt2_file

    return pt2_file(net, description)


CONTENTS: Mapping[str, Callable[[TrainedModel, str], bytes]] = {"nir": _nir, "onnx": _onnx, "pt2": _pt2}
