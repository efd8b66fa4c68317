"""`gradspike prepare`: prepares a data set and prints a summary; on request checks it and draws a contact sheet."""

from __future__ import annotations

import signal
import sys
from contextlib import nullcontext
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from gradspike.cli.arguments import CONFIG_DIR_USAGE, Command, checked_file
from gradspike.config.compose import load_config
from gradspike.config.schema import ExperimentConfig
from gradspike.data.files.data_dir import check_data_dir
from gradspike.data.registry import DATASETS
from gradspike.errors import ConfigError, Interrupted, UserError
from gradspike.exhausted import one_sentence
from gradspike.registry import Strict
from gradspike.shown import counted, expanded, listed, printable
from gradspike.terminal.printer import speak

if TYPE_CHECKING:
    from gradspike.data.prepared.stored import Prepared
    from gradspike.data.source import Samples, Source

USAGE = (
    """\
Prepare a data set once, so that training opens it in milliseconds. Training prepares a missing set by itself.

  gradspike prepare dataset=cifar10 data_dir=data
  gradspike prepare dataset=image_folder dataset.source=pictures.zip dataset.image_size=64 dataset.classes=5
  gradspike prepare dataset=cifar10 data_dir=data preview=cifar10.png

Arguments:
  dataset        the data set; its options as dataset.source=... dataset.on_bad_file=skip
  data_dir       the folder of the original files and of the prepared set            (data)
  time_steps     frames per event recording                                          (the data set's)
  workers        number of processes that prepare                                    (4, at most one per core)
  preview        PNG file to draw samples of each class to, raw and augmented
  verify         true: compare all bytes with their checksums                          (false)
  export         cifar10dvs_sim only: write the recordings to this folder in the layout of CIFAR10-DVS, then stop
  export_format  aedat (AEDAT 2.0) | npz                                             (aedat)
  key=value      any other key of `gradspike train`; only seed has an effect, on the preview
"""
    + CONFIG_DIR_USAGE
)


class PrepareConfig(Strict):
    """The arguments of `gradspike prepare` in addition to the keys of `gradspike train`."""

    workers: int | None = Field(default=None, ge=1, le=256)
    preview: str | None = None
    verify: bool = False
    export: str | None = None
    export_format: Literal["aedat", "npz"] = "aedat"


COMMAND = Command("prepare", USAGE, keys=PrepareConfig, trains=True)


def prepare(words: list[str]) -> int:
    """Prepare the data set of the command line. Returns the exit code."""
    typed = COMMAND.parse(words)
    arguments: PrepareConfig = typed.options
    config = load_config(typed.overrides, typed.config_dir)
    data_dir = check_data_dir(config.data_dir)
    preview = None if arguments.preview is None else checked_file("preview=", arguments.preview, {".png": "PNG"})

    speak()
    signal.signal(signal.SIGTERM, _end)
    from gradspike.data.source import Source

    source: Source[Any] = DATASETS.build(Source, config.dataset, config.time_steps, data_dir)  # type: ignore[type-abstract]
    source.refresh = True
    if arguments.workers is not None:
        source.prepare_workers = arguments.workers
    from gradspike.data.prepared.digests import trusting

    try:
        if arguments.export is not None:
            return _export(source, expanded(arguments.export), arguments.export_format)
        # `verify=true` reports a damaged set; opening it otherwise would prepare it again.
        advice = one_sentence(lambda: "prepare with fewer processes (workers=1); finished parts are kept", keys="")
        with advice, trusting() if arguments.verify else nullcontext():
            samples = source.checked()
            opened = _open(samples)
    except KeyboardInterrupt:
        print("\nInterrupted. Finished parts are kept; the same command continues.", file=sys.stderr)
        return 130
    print_summary(config, samples, opened)
    if arguments.verify:
        _verify(opened)
    if preview is not None:
        from gradspike.data.preview import draw_preview

        draw_preview(preview, config.dataset, samples, config.seed)
        print(f"preview    {preview}")
    return 0


def _export(source: Source[Any], folder: Path, form: Literal["aedat", "npz"]) -> int:
    """Write simulated recordings as files."""
    if source.config.name != "cifar10dvs_sim":
        raise ConfigError(f"export={folder}: is only for dataset=cifar10dvs_sim, not for dataset={source.config.name}.")
    from gradspike.data.sets.export import export

    print(f"exported   {counted(export(source, folder, form), 'recording')} to {folder}")  # type: ignore[arg-type]
    return 0


def _end(signum: int, frame: FrameType | None) -> None:
    raise Interrupted(signum, saved=True)


def _open(samples: Samples) -> Prepared | None:
    """The prepared set of the samples; None if they are not kept on disk."""
    from gradspike.data.prepared.stored import open_folder

    return None if samples.folder is None else open_folder(samples.folder)


def print_summary(config: ExperimentConfig, samples: Samples, opened: Prepared | None) -> None:
    """Print where the set is and what it contains."""
    from gradspike.data.prepared.disk import size_text
    from gradspike.data.prepared.parts import SHOWN
    from gradspike.data.source import SPLITS

    counts = {split: len(samples.indices(split)) for split in SPLITS}
    inputs = samples.inputs
    shape = "x".join(str(size) for size in inputs.shape[1:]) if hasattr(inputs, "shape") else "compressed"
    print(f"data set   {config.dataset.name}")
    if opened is not None:
        size = sum(file.stat().st_size for file in opened.folder.iterdir())
        print(f"prepared   {opened.folder}  ({size_text(size)})")
    print(f"samples    {', '.join(f'{split} {count:,}' for split, count in counts.items())}  of {shape}")
    print(
        f"classes    {config.dataset.classes}"
        + (f": {listed(map(printable, samples.class_names))}" if samples.class_names else "")
    )
    if opened is not None and (decoded := opened.facts.get("decoded")):
        from gradspike.data.events.decoded import decoding_lines
        from gradspike.data.events.recording import percent

        width, height = decoded["extent"]
        share = percent(decoded["left_out_share"])
        print(
            f"events     {decoded['events']:,} on {width}x{height} pixels; {decoded['left_out']:,} left out ({share})"
        )
        for line in decoding_lines(decoded):
            print(f"  {printable(line)}")
    if opened is not None and (kept := opened.facts.get("kept")):
        from gradspike.data.events.kept import kept_line

        print(f"{kept['what']:<10} {kept_line(kept)}")
    left_out = opened.facts.get("left_out", {}) if opened is not None else {}
    if left_out:
        from gradspike.data.prepared.file_source import left_out_text

        print(f"no sample  {left_out_text(left_out)}")
    bad = opened.facts.get("bad", []) if opened is not None else []
    if bad and opened is not None:
        print(f"left out   {counted(len(bad), 'unusable file')} (listed in {opened.folder / 'meta.json'}):")
        for path, problem in bad[:SHOWN]:
            print(f"  {printable(path)}: {problem}")
        if len(bad) > SHOWN:
            print(f"  ... and {len(bad) - SHOWN:,} more")


def _verify(opened: Prepared | None) -> None:
    from gradspike.data.prepared.digests import DamagedError
    from gradspike.data.prepared.stored import derived_sets

    if opened is None:
        return
    for one in (opened, *derived_sets(opened)):
        try:
            one.verify()
        except DamagedError as error:
            raise UserError(
                f"{one.folder} is damaged: {error}. Check the disk, delete the folder and prepare the set again."
            ) from error
    print(f"verified   {counted(len(opened.arrays), 'array')}: all checksums match")
