"""Names of other libraries that may go with any version: what to use where one is missing."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def found(name: str, otherwise: T) -> T:
    """The object with a dotted name, such as "torch._dynamo.exc.TorchDynamoException"; `otherwise` if there is none."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            one = importlib.import_module(".".join(parts[:end]))
        except ImportError:
            continue
        try:
            for part in parts[end:]:
                one = getattr(one, part)
        except AttributeError:
            return otherwise
        return one  # type: ignore[return-value]
    return otherwise


def cpu_flags() -> frozenset[str]:
    """The features of this machine's x86 processor, by their names in Linux; empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    flags = next((line.partition(":")[2] for line in lines if line.startswith("flags")), "")
    return frozenset(flags.split())
