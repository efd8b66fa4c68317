"""The engines of a test: parametrise it with one of the marks below and use the fixture `engine`.

With TRITON_INTERPRET=1 the marks name only the Triton engine, interpreted. `test_engine_triton.py` runs such tests in a
process of their own, because Triton reads the variable when it is imported, and torch.compile imports it too.
"""

from __future__ import annotations

import os

import pytest
from torch import Tensor
from typing_extensions import override

from gradspike.engine import compiled, eager, formulas
from gradspike.engine.base import Engine
from gradspike.engine.fused import FusedEngine
from gradspike.neurons.base import Neuron
from helpers.part_options import neuron_config

ENGINES: dict[str, Engine] = {
    "eager": eager.run,
    # The formulas without a compiler: finds their mistakes in a second.
    "formulas": FusedEngine(formulas),
    "compiled": compiled.run,
}

NAMES = list(ENGINES)
if os.environ.get("TRITON_INTERPRET") == "1":
    from gradspike.engine.triton import engine as triton_engine

    ENGINES["triton"] = triton_engine.run
    NAMES = ["triton"]

every_engine = pytest.mark.parametrize("engine", NAMES, indirect=True)

# For tests with many variants, whose compilation would take minutes.
compiled_slowly = pytest.mark.parametrize(
    "engine",
    [pytest.param(name, marks=[pytest.mark.slow] if name == "compiled" else []) for name in NAMES],
    indirect=True,
)


class GivenDecay(Neuron):
    """The leaky integrator with a tensor as its decay factor."""

    def __init__(self, decay: Tensor, time_steps: int, **options: object) -> None:
        super().__init__(neuron_config("lif", **options), time_steps, 1, 1.0)
        self.given = [decay]

    @property
    @override
    def decay(self) -> Tensor:
        return self.given[0]
