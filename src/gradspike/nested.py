"""Flatten nested mappings; no other module joins keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def flat(values: Mapping[str, Any], separator: str = ".", sections: bool = False) -> Iterator[tuple[str, Any]]:
    """Joined keys and leaves of a nested mapping; with `sections`, each inner mapping comes before its own leaves."""
    for key, value in values.items():
        inner = isinstance(value, Mapping)
        if sections or not inner:
            yield str(key), value
        if inner:
            yield from ((f"{key}{separator}{rest}", leaf) for rest, leaf in flat(value, separator, sections))
