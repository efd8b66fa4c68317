"""What a key of the configuration touches.

The one source for what a comparison ignores, what may change on resume, where a configuration leaves its recipe, and
whether the points of a landscape still belong to it.

A field says it by its type, as in `workers: Shown[int] = 0`, or its class says it for all fields, as in
`touches: ClassVar[Touches] = Touches.RESULT`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import Enum
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo


class Touches(Enum):
    """The first five shape the result."""

    DATA = "data"
    """Which samples there are and what they look like."""
    SPLIT = "split"
    """Which samples train, validate and test."""
    BUDGET = "budget"
    """How long the network trains, and on how much at a time."""
    FORM = "form"
    """In which form numbers and pictures are held: no paper says, but results differ."""
    RESULT = "result"
    """The result in any other way."""
    SEED = "seed"
    """Which repetition of the experiment a run is."""
    SPEED = "speed"
    """How it is computed: the same result up to rounding."""
    DEVICES = "devices"
    """On which devices, and in how many parts a batch is computed: a resumed run may change them together."""
    START = "start"
    """What a run is called, where it is kept and how it was prepared: settled when it starts."""
    SHOWN = "shown"
    """What is shown, logged and saved, and where the data lie: the same result, bit for bit."""


SHAPING = frozenset((Touches.DATA, Touches.SPLIT, Touches.BUDGET, Touches.FORM, Touches.RESULT))

T = TypeVar("T")
Data = Annotated[T, Touches.DATA]
Split = Annotated[T, Touches.SPLIT]
Budget = Annotated[T, Touches.BUDGET]
Form = Annotated[T, Touches.FORM]
Result = Annotated[T, Touches.RESULT]
Seed = Annotated[T, Touches.SEED]
Speed = Annotated[T, Touches.SPEED]
Devices = Annotated[T, Touches.DEVICES]
Start = Annotated[T, Touches.START]
Shown = Annotated[T, Touches.SHOWN]


def mark(schema: type[BaseModel], path: Sequence[str]) -> Touches | None:
    """What the key at `path` below an option class touches; None for a key that it does not have.

    Raises TypeError for a key whose mark has been forgotten.
    """
    name, *below = path
    field = schema.model_fields.get(name)
    if field is None:
        return None
    own = _own_mark(schema, name)
    if own is not None:
        return own
    inner = option_classes(field)
    if inner and below:
        return next((found for one in inner if (found := mark(one, below)) is not None), None)
    default: Touches | None = getattr(schema, "touches", None)
    if default is None:
        raise TypeError(f"{schema.__name__}.{name} does not say what it touches (see gradspike.touches)")
    return default


def leaves(schema: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Touches]]:
    """Every dotted key below an option class and what it touches. Raises TypeError as `mark` does."""
    for name, field in schema.model_fields.items():
        inner = option_classes(field) if _own_mark(schema, name) is None else []
        for one in inner:
            yield from leaves(one, f"{prefix}{name}.")
        if not inner:
            found = mark(schema, [name])
            assert found is not None
            yield prefix + name, found


def option_classes(field: FieldInfo) -> list[type[BaseModel]]:
    """The option classes that a field's annotation names."""
    union = get_origin(field.annotation) in (Union, UnionType)
    options: tuple[Any, ...] = get_args(field.annotation) if union else (field.annotation,)
    return [option for option in options if isinstance(option, type) and issubclass(option, BaseModel)]


def _own_mark(schema: type[BaseModel], name: str) -> Touches | None:
    """The mark in a field's type; a field that is declared again in a subclass keeps that of the base class."""
    for cls in schema.__mro__:
        field = cls.model_fields.get(name) if issubclass(cls, BaseModel) else None
        for found in field.metadata if field is not None else ():
            if isinstance(found, Touches):
                return found
    return None
