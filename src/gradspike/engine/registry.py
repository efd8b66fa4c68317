"""The engines by name, without importing them, and the choice for a device."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import logging
import os
from typing import TYPE_CHECKING, Literal, cast, get_args

from gradspike.errors import ConfigError, UserError, unknown

if TYPE_CHECKING:
    from gradspike.engine.base import Engine

log = logging.getLogger(__name__)

EngineName = Literal["auto", "eager", "compiled", "triton"]

ENGINES: dict[str, str] = {
    "eager": "gradspike.engine.eager:run",
    "compiled": "gradspike.engine.compiled:run",
    "triton": "gradspike.engine.triton.engine:run",
}


def load_engine(name: str) -> Engine:
    """The engine's `run` function. Raises ConfigError for an unknown name."""
    if name not in ENGINES:
        raise ConfigError(unknown("engine", name, ENGINES))
    module, _, attribute = ENGINES[name].partition(":")
    return cast("Engine", getattr(importlib.import_module(module), attribute))


def choose_engine(name: EngineName, device: str) -> str:
    """The engine for a device ("cpu", "cuda" or "mps"). Raises UserError if the named engine cannot run there.

    `auto` is the compiled engine or, with a warning, the reference engine if torch.compile does not work. It is never
    the Triton engine, which has not been measured on a GPU yet.
    """
    if name == "eager":
        return name
    if name == "triton":
        problem = triton_problem(device)
        if problem is not None:
            raise UserError(f"engine=triton: {problem}. Use engine=auto.")
        return name
    from gradspike.engine.compiled import compiler_problem

    problem = compiler_problem(device)
    if problem is None:
        return "compiled" if name == "auto" else name
    message = f"torch.compile does not work for {device} on this machine ({problem})"
    if name != "auto":
        raise UserError(f"engine={name}: {message}. Use engine=eager, which needs no compiler.")
    _warn_once(f"engine=auto: {message}. Using engine=eager, which is slower.")
    return "eager"


def runnable_engine(name: EngineName, device: str) -> EngineName:
    """`name`, or "auto", with a warning, on a device where that engine cannot run. Engines differ in rounding alone."""
    try:
        choose_engine(name, device)
    except UserError as error:
        problem = str(error).partition(". Use engine=")[0]
        _warn_once(f"{problem}. Using engine=auto, whose results may differ in rounding.")
        return "auto"
    return name


@functools.cache
def _warn_once(message: str) -> None:
    log.warning("%s", message)


def triton_problem(device: str) -> str | None:
    """Why the Triton engine cannot run on "cpu" or "cuda", in one line; None if it can."""
    if importlib.util.find_spec("triton") is None:
        return "the package triton is not installed (on Linux it comes with torch)"
    if device != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        return f"its kernels run on CUDA, not on {device} (TRITON_INTERPRET=1 interprets them, very slowly)"
    return None


assert set(get_args(EngineName)) == {"auto", *ENGINES}
