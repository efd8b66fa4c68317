"""`gradspike export`: its arguments and steps. Imports nothing heavy before the arguments are checked."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from gradspike.cli.arguments import Command, checked_file
from gradspike.config.trust import TRUST, trust_all
from gradspike.errors import ConfigError, UserError
from gradspike.registry import Strict
from gradspike.runs.data import check_data_of_run
from gradspike.runs.folder import RunFolder
from gradspike.shown import counted, shown

if TYPE_CHECKING:
    from gradspike.library.load import TrainedModel

USAGE = """\
Write a trained network in evaluation for other programs, with a description of its input and output beside it.

  gradspike export run=runs/<run> format=onnx
  gradspike export run=runs/<run> format=nir out=digits.nir bits=8

Arguments:
  run             the run's folder
  format          nir | onnx | pt2
  checkpoint      best (by validation accuracy) | last               (best)
  out             the file, which must not exist                     (<run>/<checkpoint>.<format>)
  bits            32 | 8: bits of the weights of convolutions and linear layers; 8: rounded after training,
                  per output channel                                 (32)
  thresholds      exact | mean: nir only, one threshold for all steps where a method has one for each
                                                                     (exact: refuse such methods)
  split           val | test | train: where bits=8 and thresholds=mean measure the accuracy before and after
                                                                     (val)
  data_dir        where the data for this is now, if it has moved
  dataset.source  where the data set's files are now, if they have moved
  --trust         import the code outside gradspike that the run names, also if your account never trained with it

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
    bits: Literal["32", "8"] = "32"
    thresholds: Literal["exact", "mean"] = "exact"
    split: Literal["train", "val", "test"] | None = None
    data_dir: str | None = None
    source: str | None = Field(default=None, alias="dataset.source", min_length=1)


COMMAND = Command("export", USAGE, keys=ExportConfig, switches=(TRUST,))


def export(words: list[str]) -> int:
    """Write the file and its description. Returns the exit code."""
    typed = COMMAND.parse(words)
    arguments: ExportConfig = typed.options
    if TRUST in typed.flags:
        trust_all()
    _check(arguments)
    run = RunFolder.open(arguments.run)
    checkpoint = run.checkpoint(arguments.checkpoint)
    path = _new_file(run, arguments)
    _require_packages(arguments.format)
    config = run.config()  # reports a damaged configuration before torch is imported
    if _changes(arguments):
        check_data_of_run(config, arguments.data_dir, arguments.source)

    from gradspike.library.load import load
    from gradspike.tools.export.description import describe_export
    from gradspike.tools.export.written import write_export

    net = load(checkpoint, device="cpu", engine="eager", data_dir=arguments.data_dir)
    changed = _change(net, checkpoint, arguments) if _changes(arguments) else {}
    described = describe_export(net, run.path, arguments.checkpoint, arguments.format) | changed
    for file in write_export(net, path, arguments.format, described):
        print(f"written: {shown(file)}")
    return 0


def _change(net: TrainedModel, checkpoint: Path, arguments: ExportConfig) -> dict[str, Any]:
    """Round weights or average thresholds as asked. Returns what was done and the accuracy before and after."""
    from gradspike.tools.export.accuracy import SplitAccuracy
    from gradspike.tools.export.eight_bit import use_eight_bits
    from gradspike.tools.export.thresholds import use_mean_thresholds

    split = arguments.split or "val"
    accuracy = SplitAccuracy(net.config, checkpoint, split, arguments.data_dir, arguments.source)
    before = accuracy(net.model)
    done = {}
    if arguments.thresholds == "mean":
        done["thresholds"] = f"mean over the time steps, in {counted(use_mean_thresholds(net.model), 'layer')}"
    if arguments.bits == "8":
        done["weights"] = f"8 bits per output channel, symmetric, in {counted(use_eight_bits(net.model), 'layer')}"
    after = accuracy(net.model)
    words = " and ".join(_changes(arguments))
    print(f"{split} accuracy: {100 * before:.2f} %; with {words} {100 * after:.2f} %")
    return {**done, "accuracy": {"split": split, "before": before, "after": after}}


def _check(arguments: ExportConfig) -> None:
    """Raise ConfigError for an option that this export would not use."""
    if arguments.thresholds == "mean" and arguments.format != "nir":
        raise COMMAND.error(f"thresholds=mean: {arguments.format} keeps the thresholds of all steps; leave it out.")
    if _changes(arguments):
        return
    for key, value in (
        ("split", arguments.split),
        ("data_dir", arguments.data_dir),
        ("dataset.source", arguments.source),
    ):
        if value is not None:
            raise COMMAND.error(f"{key}={value}: data are read only with bits=8 or thresholds=mean.")


def _changes(arguments: ExportConfig) -> list[str]:
    """In words, what makes the exported network another than the trained one."""
    words = [("weights of 8 bits", arguments.bits == "8"), ("mean thresholds", arguments.thresholds == "mean")]
    return [word for word, there in words if there]


def _new_file(run: RunFolder, arguments: ExportConfig) -> Path:
    """The file to write. Raises ConfigError for a wrong name or one that exists, UserError if it cannot be written."""
    ending = f".{arguments.format}"
    given = arguments.out or str(run.path / f"{arguments.checkpoint}{ending}")
    path = checked_file("out=", given, {ending: arguments.format.upper()})
    for file in (path, path.with_suffix(f"{ending}.json")):
        if file.exists():
            raise ConfigError(f"out={given}: {shown(file)} exists. Delete it, or choose another out=.")
    return path


def _require_packages(form: str) -> None:
    missing = [name for name in PACKAGES[form] if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"format={form} needs the package {missing[0]}: pip install 'gradspike[export]'")
