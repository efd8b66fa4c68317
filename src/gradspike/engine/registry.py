"""Names of the engines, without importing them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, cast

from gradspike.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from gradspike.engine.base import Engine

ENGINES: dict[str, str] = {"eager": "gradspike.engine.eager:run"}


def load_engine(name: str) -> Engine:
    """The engine's `run` function. Raises ConfigError for an unknown name."""
    if name not in ENGINES:
        allowed = ", ".join(sorted(ENGINES))
        raise ConfigError(f"There is no engine '{name}'.{did_you_mean(name, ENGINES)} Allowed: {allowed}.")
    module, _, attribute = ENGINES[name].partition(":")
    return cast("Engine", getattr(importlib.import_module(module), attribute))
