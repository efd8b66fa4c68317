"""Words in YAML files that YAML 1.1 reads as another value than they look like: 010 is 8, 1:30 is 90, yes is true."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

from gradspike.errors import ConfigError

_ODD = {
    "int": re.compile(r"[-+]?0[0-7_]+|.*[_:].*"),
    "float": re.compile(r".*[_:].*"),
    "bool": re.compile(r"yes|no|on|off", re.IGNORECASE),
    "timestamp": re.compile(r"(?!\d{4}-\d\d-\d\d( \d\d:\d\d:\d\d)?$).*"),
}


def check_words(text: str, *, times: bool) -> None:
    """Raise ConfigError for the first unquoted word that would silently become another value, YAMLError for no YAML.

    times: whether the text is going to be read by a loader that also reads dates and times.
    """
    for node in _scalars(yaml.compose(text, Loader=yaml.SafeLoader), set()):
        kind = node.tag.rpartition(":")[2]
        if node.style is not None or kind not in _ODD or (kind == "timestamp" and not times):
            continue
        if _ODD[kind].fullmatch(node.value):
            value = yaml.safe_load(node.value)
            shown = str(value).lower() if kind == "bool" else value
            raise ConfigError(
                f"line {node.start_mark.line + 1}: {node.value} would be read as {shown}. Write '{node.value}' for "
                f"text, or {shown}."
            )


def _scalars(node: Any, seen: set[int]) -> Iterator[Any]:
    if node is None or id(node) in seen:  # an alias
        return
    seen.add(id(node))
    if isinstance(node, yaml.ScalarNode):
        yield node
    else:
        for inner in node.value:
            for one in inner if isinstance(inner, tuple) else (inner,):
                yield from _scalars(one, seen)
