"""`gradspike describe`: its arguments and steps. Imports nothing heavy before the arguments are checked."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

from pydantic import PositiveInt

from gradspike.cli.arguments import CONFIG_DIR_USAGE, Command, checked_file
from gradspike.config.compose import load_config
from gradspike.config.recipes import percent, published_for
from gradspike.config.schema import ExperimentConfig
from gradspike.config.trust import TRUST, trust_all
from gradspike.config.validate import validate
from gradspike.errors import UserError
from gradspike.exhausted import one_sentence
from gradspike.json_text import to_json
from gradspike.registry import Strict
from gradspike.runs.data import check_data_of_run
from gradspike.runs.files import is_read_only, write_output
from gradspike.runs.folder import RunFolder
from gradspike.runs.start import start_file
from gradspike.shown import shown

if TYPE_CHECKING:
    from gradspike.tools.describe.measure import Description

USAGE = (
    """\
Print the shapes and costs of a network, layer by layer, and of its ReLU twin. Needs no data. Of a run, also
print NeuroBench's metrics.

  gradspike describe model=resnet19 dataset=cifar10 method=ds_atgo
  gradspike describe dataset=cifar10dvs time_steps=16 out=vggsnn.json
  gradspike describe run=runs/<run>

Arguments:
  key=value          any key of `gradspike train` (gradspike train --help)
  out                JSON file for the same numbers
  run                a run's folder, in place of other keys; with data_dir and dataset.source if its data have moved
  checkpoint         of the run: last | best (by validation accuracy)   (last)
  samples            of the test split, for NeuroBench's metrics        (64)
  --trust            import the code outside gradspike that the run names, also if your account never trained with it
"""
    + CONFIG_DIR_USAGE
    + """
All numbers are for one sample and all time steps.
  steps       how often the layer is computed: 1 if its input is the same at every step, else T
  output      of one step: channels x height x width
  MACs        multiply-accumulates of convolutions and matrix products in an evaluation pass (half of what
              torch.utils.flop_counter counts as FLOPs), dense: zeros in a layer's input also count. Neurons, norms and
              pooling have none
  kept        memory that a training pass keeps for its backward pass. A tensor kept by several layers counts once, at
              the first of them. Weights, gradients and optimiser state are not included
  not called  a layer that is never called; another layer may use its weights

NeuroBench's metrics (Yik et al., Nature Communications 2025) are means over the samples, for all time steps.
  footprint            memory of parameters and buffers
  connection sparsity  share of weights of convolutions and linear layers that are 0
  activation sparsity  share of outputs of neurons that are 0
  dense synaptic operations, effective MACs, effective ACs
                       products of inputs and weights: all of them; those of two nonzero factors in layers with real
                       inputs; the same in layers whose inputs are -1, 0 and 1. Padding and biases do not count
  membrane updates     potentials that a time step changes
Runs record them in their test; `gradspike compare --columns` shows them. Older runs get the record from here.
"""
)


class DescribeConfig(Strict):
    """Arguments of `gradspike describe` besides the keys of `gradspike train`."""

    out: str | None = None
    run: str | None = None
    checkpoint: Literal["last", "best"] | None = None
    samples: PositiveInt | None = None


COMMAND = Command("describe", USAGE, keys=DescribeConfig, switches=(TRUST,), trains=True)
OF_MOVED_DATA = ("data_dir", "dataset.source")


def describe(words: list[str]) -> int:
    """Print the table of the configuration that `words` compose, or of a run. Returns the exit code."""
    typed = COMMAND.parse(words)
    options: DescribeConfig = typed.options
    run = None if options.run is None else RunFolder.open(options.run)
    if TRUST in typed.flags:
        trust_all()
    if run is None:
        if given := [key for key in ("checkpoint", "samples") if getattr(options, key) is not None]:
            raise COMMAND.error(f"{given[0]}: has an effect only with run=...")
        config = load_config(typed.overrides, typed.config_dir)
        start_file(config)
    else:
        moved = _moved(typed.overrides)
        checkpoint = run.checkpoint(options.checkpoint or "last")
        config = run.config()
        check_data_of_run(config, moved.get("data_dir"), moved.get("dataset.source"))
    path = None if options.out is None else checked_file("out=", options.out)

    from gradspike.tools.describe.measure import measure
    from gradspike.tools.describe.table import print_description, print_neurobench
    from gradspike.training.to_lower import to_lower

    found: dict[str, Any] | None = None
    with one_sentence(lambda: to_lower(config, trains=False)):
        if run is not None:
            from gradspike.tools.describe.run import measure_run
            from gradspike.training.evaluate import as_evaluated

            config = as_evaluated(config, moved.get("data_dir"), "cpu", source=moved.get("dataset.source"))
            found = measure_run(config, checkpoint, options.samples)
        network = measure(config)
        twins = [(name, measure(twin)) for name, twin in _twins(config)]
    print_description(config, network, twins, _published(config))
    if run is not None and found is not None:
        print_neurobench(shown(run.path), checkpoint.stem, found)
        if checkpoint.stem == "last":
            _record(run, found)
    if path is not None:
        numbers = _numbers(config, network, twins) | ({} if found is None else {"neurobench": found})
        write_output(path, to_json(numbers, indent=2) + "\n", "out=")
        print(f"written: {path}")
    return 0


def _moved(overrides: list[str]) -> dict[str, str]:
    """Where the data of a run are now. Raises ConfigError for other keys: the run has its own configuration."""
    moved = dict(word.split("=", 1) for word in overrides)
    for key in moved:
        if key not in OF_MOVED_DATA:
            raise COMMAND.error(f"{key}: a run has its own configuration. With run=, leave it out.")
    return moved


def _record(run: RunFolder, found: dict[str, Any]) -> None:
    """Record the metrics in a run that has none; print where, or that the folder is read-only."""
    from gradspike.tools.describe.run import record_if_missing

    try:
        if (file := record_if_missing(run, found)) is not None:
            print(f"written: {shown(file)}")
    except UserError as error:
        if not is_read_only(error.__cause__):
            raise
        print(f"Note: the run folder is read-only, so the metrics are not recorded: {error}", file=sys.stderr)


def _twins(config: ExperimentConfig) -> list[tuple[str, ExperimentConfig]]:
    """The ANN twin over the same number of steps, and over one step, as an ordinary network."""
    if config.model.activation == "relu":
        return []
    plain = config.plain()
    plain["model"]["activation"] = "relu"
    twins = [(f"ReLU twin, T = {config.time_steps}", validate(plain))]
    if config.time_steps > 1:
        twins.append(("ReLU twin, T = 1", validate({**plain, "time_steps": 1})))
    return twins


def _published(config: ExperimentConfig) -> str | None:
    """A line with the published accuracy of exactly this configuration, if there is one."""
    published = published_for(config)
    if published is None or config.recipe is None:
        return None
    return f"published with these settings: {percent(published)} ({config.recipe.source})"


def _numbers(config: ExperimentConfig, network: Description, twins: list[tuple[str, Description]]) -> dict[str, Any]:
    """The content of the JSON file."""
    return {
        "label": config.label(),
        "time_steps": config.time_steps,
        "precision": config.trainer.precision,
        "report": network.report,
        "layers": [asdict(layer) for layer in network.layers],
        "total": network.totals(),
        "twins": {name: twin.totals() for name, twin in twins},
    }
