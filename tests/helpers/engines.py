"""The engines a test runs over: parametrise with one of the marks below and ask for the fixture `engine`.

With TRITON_INTERPRET=1 the marks name the Triton engine alone, interpreted: `test_engine_triton.py` runs tests so in
a process of their own, since Triton reads the variable when it is imported, and torch.compile imports it too.
"""

from __future__ import annotations

import os

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

NAMES = list(ENGINES)
if os.environ.get("TRITON_INTERPRET") == "1":
    from gradspike.engine.triton import engine as triton_engine

    ENGINES["triton"] = triton_engine.run
    NAMES = ["triton"]

every_engine = pytest.mark.parametrize("engine", NAMES, indirect=True)

# Where each of many variants would be compiled for itself: minutes.
compiled_slowly = pytest.mark.parametrize(
    "engine",
    [pytest.param(name, marks=[pytest.mark.slow] if name == "compiled" else []) for name in NAMES],
    indirect=True,
)
