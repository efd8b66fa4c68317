"""What each key of the configuration affects.

The only source for what a comparison ignores, what may change on resume, how a configuration deviates from its recipe,
and whether the saved points of a landscape are still valid.

A field's type sets its mark, as in `workers: Shown[int] = 0`. A class can set the mark of all its fields, as in
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
    """What a key affects. The first five change the result."""

    DATA = "data"
    """Which samples exist, and their content."""
    SPLIT = "split"
    """Which samples are used for training, validation and test."""
    BUDGET = "budget"
    """How long the network trains, and on how many samples at a time."""
    FORM = "form"
    """The format of numbers and images: papers do not state it, but it changes results."""
    RESULT = "result"
    """Any other effect on the result."""
    SEED = "seed"
    """Which repetition of the experiment a run is."""
    SPEED = "speed"
    """How the result is computed: the same up to rounding."""
    DEVICES = "devices"
    """On which devices, and in how many parts a batch is computed: a resumed run may change them together."""
    START = "start"
    """A run's name, folder and preparation: fixed when it starts."""
    SHOWN = "shown"
    """What is shown, logged and saved, and where the data are: a bit-identical result."""


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
    """The mark of the key at `path` below an option class; None for an unknown key.

    Raises TypeError for a key without a mark.
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
        raise TypeError(f"{schema.__name__}.{name} has no mark for what it affects (see gradspike.touches)")
    return default


def leaves(schema: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Touches]]:
    """Every dotted key below an option class, with its mark. Raises TypeError as `mark` does."""
    for name, field in schema.model_fields.items():
        inner = option_classes(field) if _own_mark(schema, name) is None else []
        for one in inner:
            yield from leaves(one, f"{prefix}{name}.")
        if not inner:
            found = mark(schema, [name])
            assert found is not None
            yield prefix + name, found


def option_classes(field: FieldInfo) -> list[type[BaseModel]]:
    """The option classes in a field's annotation."""
    union = get_origin(field.annotation) in (Union, UnionType)
    options: tuple[Any, ...] = get_args(field.annotation) if union else (field.annotation,)
    return [option for option in options if isinstance(option, type) and issubclass(option, BaseModel)]


def _own_mark(schema: type[BaseModel], name: str) -> Touches | None:
    """The mark in a field's type; a field that a subclass redefines keeps the mark of the base class."""
    for cls in schema.__mro__:
        field = cls.model_fields.get(name) if issubclass(cls, BaseModel) else None
        for found in field.metadata if field is not None else ():
            if isinstance(found, Touches):
                return found
    return None
