"""Which method runs with which neuron: builds every pair with every norm, and writes docs/compatibility.md.

python tests/helpers/compatibility.py --write
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[2] / "src"), str(Path(__file__).parents[1])]

from torch import nn

from gradspike.errors import ConfigError
from gradspike.methods.registry import METHODS
from gradspike.models.spiking_layers import name_layers
from gradspike.neurons.registry import NEURONS
from gradspike.norms.registry import NORMS
from gradspike.spiking_norm import LayerContext, SpikingNorm
from helpers.method_checks import method_config
from helpers.part_options import neuron_config, norm_config

PAGE = Path(__file__).parents[2] / "docs" / "compatibility.md"

TEXT = """\
# Compatibility

Which method runs with which neuron, with their default options. `make compatibility` builds every pair with every norm
and writes this page; a test trains each pair that is built, and compares the engines.

{table}

{reasons}

{norms}
"""


def layer_of(method: str, neuron: str, norm: str, engine: str = "eager", time_steps: int = 3) -> SpikingNorm:
    """A small layer as a network builds it. Raises ConfigError if the combination is refused."""
    context = LayerContext(time_steps, neuron_config(neuron), method_config(method), norm_config(norm), engine=engine)
    layer = context.layer(2)
    assert isinstance(layer, SpikingNorm)
    name_layers(nn.ModuleDict({"layer": layer}))
    return layer


def refusal(method: str, neuron: str, norm: str) -> str:
    """The sentence with which a combination is refused; "" if it is built."""
    try:
        layer_of(method, neuron, norm)
    except ConfigError as error:
        return str(error)
    return ""


def page() -> str:
    """The whole page."""
    reasons: dict[str, str] = {}
    rows = []
    by_norm = set()
    for method in METHODS.names():
        cells = []
        for neuron in NEURONS.names():
            said = {norm: refusal(method, neuron, norm) for norm in NORMS.names()}
            by_norm |= {(method, neuron)} if len(set(said.values())) > 1 else set()
            sentence = _general(next(iter(said.values())), method, neuron)
            cells.append(reasons.setdefault(sentence, chr(ord("a") + len(reasons))) if sentence else "yes")
        rows.append(f"| `{method}` | {' | '.join(cells)} |")
    head = f"| | {' | '.join(f'`{name}`' for name in NEURONS.names())} |"
    table = "\n".join([head, "|---" * (len(NEURONS.names()) + 1) + "|", *rows])
    lines = "\n".join(f"- **{letter}**: {sentence}" for sentence, letter in reasons.items())
    norms = f"Norms restrict nothing: each of these pairs is built with {_listed(NORMS.names())}."
    if by_norm:
        norms = f"Some pairs depend on the norm: {sorted(by_norm)}."
    return TEXT.format(
        table=table, reasons=f"Refused, with the sentence that the command prints:\n\n{lines}", norms=norms
    )


def _general(sentence: str, method: str, neuron: str) -> str:
    """The sentence without the names of this pair."""
    for name, general in ((method, "..."), (neuron, "...")):
        sentence = sentence.replace(f"'{name}'", f"'{general}'")
    return re.sub(r" in layer '\w+'", "", sentence)


def _listed(names: list[str]) -> str:
    quoted = [f"`{name}`" for name in names]
    return ", ".join(quoted[:-1]) + f" and {quoted[-1]}"


def main() -> None:
    """Print the page, or write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name}")
    if parser.parse_args().write:
        PAGE.write_text(page(), encoding="utf-8")
    else:
        print(page(), end="")


if __name__ == "__main__":
    main()
