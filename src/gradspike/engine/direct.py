"""Calls of compiled kernels without torch.compile's wrapper around each call.

The wrapper compares guards and unpacks records. In a small layer this takes longer than the kernel. What it does
depends on shapes, strides, dtypes and devices of the tensors and on torch's global state alone. So the first call with
each of them goes through the wrapper, which may compile again; the `Recorder` notes which compiled function it called
with what, and later calls with tensors alike call this function.
"""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

Leaf = Tensor | None
Last = tuple[Callable[..., Any], Sequence[Any], Sequence[Any]]
"""A compiled function, and the arguments and results of a call."""


def leaves(values: Sequence[Any]) -> list[Leaf]:
    """All tensors of nested records, and None where there is none, in order."""
    found: list[Leaf] = []
    _collect(values, found)
    return found


def alike(tensors: Sequence[Leaf]) -> tuple[Hashable, ...]:
    """The properties of tensors on which the wrapper's choice may depend."""
    return tuple(
        None if each is None else (each.shape, each.stride(), each.dtype, each.device, each.is_inference())
        for each in tensors
    )


class Recorder:
    """A backend of torch.compile: Inductor, which notes the last call of a function that it has compiled.

    options: of Inductor.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options
        self._noted = threading.local()

    def __call__(self, graph: Any, inputs: Any, **_: Any) -> Callable[..., Any]:
        """Compile a graph."""
        compiled: Callable[..., Any] = torch._inductor.compile(graph, inputs, options=self._options)  # type: ignore[no-untyped-call]

        def noted(*arguments: Any) -> Any:
            results = compiled(*arguments)
            self._noted.last = compiled, arguments, results
            return results

        return noted

    def take(self) -> Last | None:
        """Function, arguments and results of this thread's last call, which is then forgotten."""
        last = getattr(self._noted, "last", None)
        self._noted.last = None
        return last


class DirectCall:
    """A call of a compiled function for tensors like those of a recorded call."""

    def __init__(self, function: Callable[..., Any], pick: Callable[..., Any], constants: list[Any], form: Any) -> None:
        self._function = function
        self._pick = pick
        self._constants = constants
        self._form = form

    @classmethod
    def of(cls, last: Last, tensors: Sequence[Leaf], record: Any) -> DirectCall | None:
        """From the noted call that computed `record` from `tensors`.

        None if another function than the compiled one made some of it, or it is not clear from what: if an argument is
        no tensor of `tensors` and no number, or is two of them.
        """
        function, arguments, results = last
        places: list[int] = []
        constants: list[Any] = []
        for argument in arguments:
            if isinstance(argument, Tensor):
                found = [place for place, tensor in enumerate(tensors) if tensor is argument]
                if len(found) != 1:
                    return None
                places.append(found[0])
            elif isinstance(argument, int):
                places.append(len(tensors) + len(constants))
                constants.append(argument)
            else:
                return None
        form = _form(record, results)
        if len(places) < 2 or form is _UNKNOWN:
            return None
        return cls(function, operator.itemgetter(*places), constants, form)

    def __call__(self, tensors: list[Leaf]) -> Any:
        """The record for these tensors."""
        return _filled(self._form, self._function(*self._pick(tensors + self._constants)))


_UNKNOWN = object()


def _collect(values: Sequence[Any], found: list[Leaf]) -> None:
    for value in values:
        if isinstance(value, tuple):
            _collect(value, found)
        else:
            found.append(value)


def _form(record: Any, results: Sequence[Any]) -> Any:
    """A record of results as the indices of these, nested in lists behind their types; _UNKNOWN if it is none."""
    if record is None:
        return None
    if isinstance(record, tuple):
        parts = [_form(part, results) for part in record]
        return _UNKNOWN if _UNKNOWN in parts else (type(record), parts)
    found = [index for index, result in enumerate(results) if result is record]
    return found[0] if found else _UNKNOWN


def _filled(form: Any, results: Sequence[Any]) -> Any:
    """The inverse of `_form`."""
    if form is None:
        return None
    if isinstance(form, int):
        return results[form]
    kind, parts = form
    filled = [_filled(part, results) for part in parts]
    return kind._make(filled) if hasattr(kind, "_make") else kind(filled)
