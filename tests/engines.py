"""The engines a test runs over: parametrise with one of the marks below and ask for the fixture `engine`."""

from __future__ import annotations

import pytest

from gradspike.engine import compiled, eager, formulas
from gradspike.engine.base import Engine
from gradspike.engine.fused import FusedEngine

ENGINES: dict[str, Engine] = {
    "eager": eager.run,
    # What is compiled, as it stands: a formula's mistakes are found in a second, without a compiler.
    "formulas": FusedEngine(formulas),
    "compiled": compiled.run,
}

every_engine = pytest.mark.parametrize("engine", list(ENGINES), indirect=True)

# Where each of many variants would be compiled for itself: minutes.
compiled_slowly = pytest.mark.parametrize(
    "engine", ["eager", "formulas", pytest.param("compiled", marks=pytest.mark.slow)], indirect=True
)
