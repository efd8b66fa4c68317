"""Small tensors on which kernels are compiled: like those of a call, but of fixed sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from gradspike.engine import formulas
from gradspike.engine.records import Spec

Axes = str | tuple[Any, ...]
"""Names of a tensor's axes, one letter each; for a record, those of each part, or one for all parts. Axes with names
that `SIZES` lacks keep their sizes."""

SIZES = {"P": 8, "Q": 24, "S": 24, "C": 32}
"""Sizes used to compile kernels. None is 1, which torch.compile would treat as a constant."""


def examples(formula: Any, values: tuple[Any, ...], spec: Spec) -> list[Any]:
    """An example of each argument of a formula; sizes of 1 stay 1."""
    return [_example(value, names, spec.time_steps) for value, names in zip(values, AXES[formula](spec), strict=True)]


def tensors_of(values: Any) -> Iterator[Tensor]:
    """All tensors of nested records, in order."""
    for value in values:
        if isinstance(value, tuple):
            yield from tensors_of(value)
        elif value is not None:
            yield value


def axes(spec: Spec) -> str:
    """Names of the axes of a layer's values."""
    return "TPQC" if spec.arrangement == "rows" else "TPCS"


def input_axes(spec: Spec) -> Axes:
    """Names of the axes of `Inputs`."""
    return axes(spec), "C", "TC", "TC", value_axes(spec), "", ()


def step_axes(spec: Spec) -> Axes:
    """Names of the axes of `Step`."""
    step = axes(spec)[1:]
    return step, "C", "C", step, step, value_axes(spec, picked=True)


def value_axes(spec: Spec, picked: bool = False) -> Axes:
    """Names of the axes of the neuron's values; `picked`: of one step."""
    names = ("",) if spec.rules is None else tuple(spec.rules.neuron.axes.values())
    return tuple(name.removeprefix("T") if picked and name in ("T", "TC") else name for name in names)


AXES: dict[Any, Callable[[Spec], tuple[Axes, ...]]] = {
    formulas.batch_statistics: lambda spec: (axes(spec),),
    formulas.forward: lambda spec: (input_axes(spec), "TC"),
    formulas.forward_part: lambda spec: (input_axes(spec), "TC", axes(spec)[1:]),
    formulas.advance: lambda spec: (axes(spec), step_axes(spec), "C", value_axes(spec, picked=True)),
    formulas.finish: lambda spec: (step_axes(spec),),
    formulas.backward: lambda spec: (input_axes(spec), (axes(spec), "T", "T", "T")),
    formulas.backward_part: lambda spec: (input_axes(spec), (axes(spec), "T", "T", "T"), axes(spec)[1:]),
    formulas.add_through_statistics: lambda spec: (axes(spec), axes(spec), "C", "C"),
}
"""Names of the axes of each formula's arguments."""


def _example(value: Any, names: Axes, time_steps: int) -> Any:
    """Small tensors of fixed sizes and the same kind; sizes of 1 stay 1."""
    if value is None:
        return None
    if isinstance(value, tuple):
        # One name for all parts of a record with equal shapes.
        each = names if isinstance(names, tuple) else (names,) * len(value)
        parts = [_example(part, name, time_steps) for part, name in zip(value, each[: len(value)], strict=True)]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    sizes = {**SIZES, "T": time_steps}
    if len(names) < value.ndim or not set(names) <= set(sizes):
        shape = list(value.shape)
    else:
        shape = [1 if size == 1 else sizes[name] for size, name in zip(value.shape, names, strict=False)]
    with torch.inference_mode(value.is_inference()):
        return value.new_zeros(shape)
