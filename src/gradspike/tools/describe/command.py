"""`gradspike describe`: arguments, order of work, and the file. Imports nothing heavy by itself."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from gradspike.cli.arguments import checked_file, take_config_dir
from gradspike.config.compose import load_config
from gradspike.config.recipes import percent, published_for
from gradspike.config.schema import ExperimentConfig
from gradspike.config.validate import validate
from gradspike.runs.files import write_output

if TYPE_CHECKING:
    from gradspike.tools.describe.measure import Description

USAGE = """\
Shapes and cost of a network, layer by layer, and its ReLU twin beside it. Needs no data.

  gradspike describe model=resnet19 dataset=cifar10 method=ds_atgo
  gradspike describe dataset=cifar10dvs time_steps=16 out=vggsnn.json

  key=value   what gradspike train takes: groups (gradspike train --help) and single keys
  out         a file to which the same numbers are written as JSON
  --config-dir FOLDER   a folder of your own with further options of the groups

All numbers are for one sample and all time steps.
  steps       how often the layer is computed: 1 where its input does not change over time, else T
  output      of one step: channels x height x width
  MACs        multiply-accumulates of convolutions and matrix products in an evaluation pass (half of what
              torch.utils.flop_counter counts as FLOPs), dense, whatever share of a layer's input is zero; neurons,
              norms and pooling have none
  kept        what a training pass keeps in memory for its backward. A tensor that several layers keep counts once,
              at the first of them. Weights, gradients and the optimiser's state come on top
  not called  a layer whose weights another one uses, or nothing does
"""


def describe(words: list[str]) -> int:
    """Print the table of the configuration that `words` compose. Returns the exit code."""
    if any(word in ("-h", "--help") for word in words):
        print(USAGE, end="")
        return 0
    words, config_dir = take_config_dir(words, USAGE)
    out = [word.partition("=")[2] for word in words if word.startswith("out=")]
    config = load_config([word for word in words if not word.startswith("out=")], config_dir)
    path = checked_file(out[-1]) if out else None

    from gradspike.tools.describe.measure import measure
    from gradspike.tools.describe.table import print_description

    network = measure(config)
    twins = [(name, measure(twin)) for name, twin in _twins(config)]
    print_description(config, network, twins, _published(config))
    if path is not None:
        write_output(path, json.dumps(_numbers(config, network, twins), indent=2) + "\n", "out=")
        print(f"written: {path}")
    return 0


def _twins(config: ExperimentConfig) -> list[tuple[str, ExperimentConfig]]:
    """The ANN twin over the same number of steps, and as the ordinary network that it is, for one step."""
    if config.model.activation == "relu":
        return []
    plain = config.plain()
    plain["model"]["activation"] = "relu"
    twins = [(f"ReLU twin, T = {config.time_steps}", validate(plain))]
    if config.time_steps > 1:
        twins.append(("ReLU twin, T = 1", validate({**plain, "time_steps": 1})))
    return twins


def _published(config: ExperimentConfig) -> str | None:
    """The published accuracy of this very configuration, as a line."""
    published = published_for(config)
    if published is None or config.recipe is None:
        return None
    return f"published with these settings: {percent(published)} ({config.recipe.source})"


def _numbers(config: ExperimentConfig, network: Description, twins: list[tuple[str, Description]]) -> dict[str, Any]:
    """What the file holds."""
    return {
        "label": config.label(),
        "time_steps": config.time_steps,
        "precision": config.trainer.precision,
        "report": network.report,
        "layers": [asdict(layer) for layer in network.layers],
        "total": network.totals(),
        "twins": {name: twin.totals() for name, twin in twins},
    }
