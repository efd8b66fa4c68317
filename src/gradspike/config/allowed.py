"""What the schema allows for a key, in words: `number above 0, or null`."""

from __future__ import annotations

from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from gradspike.registry import Allowed

TYPES = {int: "integer", float: "number", str: "text", bool: "true | false", NoneType: "null"}
BOUNDS = (("gt", "above {}"), ("ge", "at least {}"), ("lt", "below {}"), ("le", "at most {}"))


def allowed(field: FieldInfo) -> str:
    """Type and range of a field, or its choices."""
    return _words(field.annotation, list(field.metadata))


def _words(annotation: Any, metadata: list[Any]) -> str:
    if (own := next((one for one in metadata if isinstance(one, Allowed)), None)) is not None:
        return own.words
    kind, inner = get_origin(annotation), get_args(annotation)
    if kind is Annotated:
        return _words(inner[0], [*_flat(inner[1:]), *metadata])
    if kind is Literal:
        return " | ".join(_value(one) for one in inner)
    if kind in (Union, UnionType):
        every = [_words(one, metadata) for one in inner]
        return ", or ".join([*(one for one in every if one != "null"), *(["null"] if "null" in every else [])])
    if kind is dict:
        return "dictionary"
    if kind in (list, tuple):
        each = [one for one in inner if one is not Ellipsis]
        count = len(each) if kind is tuple and Ellipsis not in inner else None
        return f"list of {'' if count is None else f'{count} '}({_words(each[0], [])})" if each else "list"
    return f"{TYPES.get(annotation, 'any value')}{_range(metadata) if annotation in (int, float) else ''}"


def _flat(metadata: tuple[Any, ...]) -> list[Any]:
    """Metadata with that of pydantic's `Field(...)` inside a type."""
    return [one for each in metadata for one in (each.metadata if isinstance(each, FieldInfo) else [each])]


def _range(metadata: list[Any]) -> str:
    bounds = {name: bound for name, _ in BOUNDS for one in metadata if (bound := getattr(one, name, None)) is not None}
    if set(bounds) == {"ge", "le"}:
        return f" {_value(bounds['ge'])} to {_value(bounds['le'])}"
    found = [text.format(_value(bounds[name])) for name, text in BOUNDS if name in bounds]
    return f" {' and '.join(found)}" if found else ""


def _value(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)
