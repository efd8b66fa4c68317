"""What the keys of a composed configuration affect, including the options of its data set, model and method."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from gradspike.config.schema import ExperimentConfig
from gradspike.config.trust import trusted
from gradspike.config.validate import PLUGGABLE
from gradspike.errors import ConfigError
from gradspike.nested import flat
from gradspike.registry import Strict
from gradspike.touches import Touches, leaves, mark


def touches(plain: Mapping[str, Any]) -> dict[str, Touches]:
    """The mark of each dotted key of a plain configuration, which another version or other files may have made.

    A key that its part does not have gets the mark it has in other parts, else that of its section, else RESULT,
    because an unknown key may change the result.
    """
    schemas = {section: _schema(section, plain.get(section)) for section in PLUGGABLE}
    found: dict[str, Touches] = {}
    for key, _ in flat(plain):
        section, *rest = key.split(".")
        schema = schemas.get(section) if rest else None
        known = mark(schema, rest) if schema else mark(ExperimentConfig, [section, *rest])
        default: Touches = getattr(schema, "touches", Touches.RESULT)
        found[key] = known or dict(_every_leaf()).get(key, default)
    return found


@cache
def always_shown(key: str) -> bool:
    """Whether a key, or every key of a section, has the mark SHOWN in all data sets, models and methods."""
    marks = {
        found
        for path, found in _every_leaf()
        if path == key or path.startswith(f"{key}.") or key.startswith(f"{path}.")
    }
    return marks == {Touches.SHOWN}


def _schema(section: str, options: Any) -> type[Strict]:
    registry = PLUGGABLE[section]
    base: type[Strict] = registry.base
    if not isinstance(options, Mapping) or "name" not in options:
        return base
    try:
        name = registry.part(options)
        return registry.config_class(name) if ":" not in name or trusted(name) else base
    except ConfigError:
        return base


@cache
def _every_leaf() -> tuple[tuple[str, Touches], ...]:
    own = [(key, found) for key, found in leaves(ExperimentConfig) if key.partition(".")[0] not in PLUGGABLE]
    for section, registry in PLUGGABLE.items():
        for name in registry.names():
            own += leaves(registry.config_class(name), f"{section}.")
    return tuple(own)
