"""`gradspike export`: its arguments and steps. Imports nothing heavy before the arguments are checked."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Literal

from gradspike.cli.arguments import Command, checked_file
from gradspike.config.trust import TRUST, trust_all
from gradspike.errors import UserError
from gradspike.registry import Strict
from gradspike.runs.folder import RunFolder
from gradspike.shown import shown

USAGE = """\
Write a trained network in evaluation for other programs, with a description of its input and output beside it.

  gradspike export run=runs/<run> format=onnx
  gradspike export run=runs/<run> format=nir out=digits.nir

Arguments:
  run         the run's folder
  format      nir | onnx | pt2
  checkpoint  best (by validation accuracy) | last                   (best)
  out         the file, which must not exist                         (<run>/<checkpoint>.<format>)
  --trust     import the code outside gradspike that the run names, also if your account never trained with it

nir   a graph of one time step, for neuromorphic chips and other spiking frameworks: lif, plif and if neurons,
      convolutions and linear layers with their norms folded in, average pooling
onnx  all time steps, from stored samples to logits, for ONNX Runtime
pt2   the same, for torch.export.load; needs no gradspike
"""

Format = Literal["nir", "onnx", "pt2"]
PACKAGES = {"nir": ("nir",), "onnx": ("onnx", "onnxscript"), "pt2": ()}
"""What each format needs besides torch."""


class ExportConfig(Strict):
    """Arguments of `gradspike export`."""

    run: str
    format: Format
    checkpoint: Literal["best", "last"] = "best"
    out: str | None = None


COMMAND = Command("export", USAGE, keys=ExportConfig, switches=(TRUST,))


def export(words: list[str]) -> int:
    """Write the file and its description. Returns the exit code."""
    typed = COMMAND.parse(words)
    arguments: ExportConfig = typed.options
    if TRUST in typed.flags:
        trust_all()
    run = RunFolder.open(arguments.run)
    checkpoint = run.checkpoint(arguments.checkpoint)
    path = _new_file(run, arguments)
    _require_packages(arguments.format)
    run.config()  # reports a damaged configuration before torch is imported

    from gradspike.library.load import load
    from gradspike.tools.export.description import describe_export
    from gradspike.tools.export.written import write_export

    net = load(checkpoint, device="cpu", engine="eager")
    described = describe_export(net, run.path, arguments.checkpoint, arguments.format)
    for file in write_export(net, path, arguments.format, described):
        print(f"written: {shown(file)}")
    return 0


def _new_file(run: RunFolder, arguments: ExportConfig) -> Path:
    """The file to write. Raises ConfigError for a wrong name, UserError if it cannot be written or exists."""
    ending = f".{arguments.format}"
    given = arguments.out or str(run.path / f"{arguments.checkpoint}{ending}")
    path = checked_file("out=", given, {ending: arguments.format.upper()})
    for file in (path, path.with_suffix(f"{ending}.json")):
        if file.exists():
            raise UserError(f"out={given}: {shown(file)} exists. Delete it, or choose another out=.")
    return path


def _require_packages(form: str) -> None:
    missing = [name for name in PACKAGES[form] if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"format={form} needs the package {missing[0]}: pip install 'gradspike[export]'")
