"""`gradspike describe`: its arguments and steps. Imports nothing heavy before the arguments are checked."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from gradspike.cli.arguments import CONFIG_DIR_USAGE, Command, checked_file
from gradspike.config.compose import load_config
from gradspike.config.recipes import percent, published_for
from gradspike.config.schema import ExperimentConfig
from gradspike.config.validate import validate
from gradspike.exhausted import one_sentence
from gradspike.json_text import to_json
from gradspike.registry import Strict
from gradspike.runs.files import write_output

if TYPE_CHECKING:
    from gradspike.tools.describe.measure import Description

USAGE = (
    """\
Print the shapes and costs of a network, layer by layer, and of its ReLU twin. Needs no data.

  gradspike describe model=resnet19 dataset=cifar10 method=ds_atgo
  gradspike describe dataset=cifar10dvs time_steps=16 out=vggsnn.json

Arguments:
  key=value          any key of `gradspike train` (gradspike train --help)
  out                JSON file for the same numbers
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
"""
)


class DescribeConfig(Strict):
    """Arguments of `gradspike describe` besides the keys of `gradspike train`."""

    out: str | None = None


COMMAND = Command("describe", USAGE, keys=DescribeConfig, trains=True)


def describe(words: list[str]) -> int:
    """Print the table of the configuration that `words` compose. Returns the exit code."""
    typed = COMMAND.parse(words)
    config = load_config(typed.overrides, typed.config_dir)
    path = None if typed.options.out is None else checked_file("out=", typed.options.out)

    from gradspike.tools.describe.measure import measure
    from gradspike.tools.describe.table import print_description
    from gradspike.training.to_lower import to_lower

    with one_sentence(lambda: to_lower(config, trains=False)):
        network = measure(config)
        twins = [(name, measure(twin)) for name, twin in _twins(config)]
    print_description(config, network, twins, _published(config))
    if path is not None:
        write_output(path, to_json(_numbers(config, network, twins), indent=2) + "\n", "out=")
        print(f"written: {path}")
    return 0


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
