"""The layers that a network calls in one time step, and what flows from one to the next."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode, resolve_name
from typing_extensions import override

from gradspike.engine.streamed import StreamPass, streaming
from gradspike.errors import ConfigError
from gradspike.norms.base import ChannelNorm
from gradspike.spiking_norm import ActivationLayer

INPUT = "input"
FLATTEN, ADD = "flatten", "add"
"""Operations outside layers: all axes but the batch become one; a sum of two values."""

RESHAPES = {getattr(Tensor, name) for name in ("view", "reshape", "flatten", "unsqueeze", "squeeze", "unflatten")}
RESHAPES |= {torch.reshape, torch.flatten, torch.unsqueeze, torch.squeeze, torch.unflatten}
COPIES = {Tensor.contiguous, Tensor.clone, Tensor.detach, Tensor.to, Tensor.float}
SUMS = {torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__, Tensor.add_, Tensor.__iadd__}
WITHOUT_EFFECT = (nn.Identity, nn.Dropout, nn.Dropout2d, nn.Sequential)
"""Layers that pass on their input in evaluation; Sequential if it is empty."""


@dataclass(frozen=True)
class Call:
    """One layer, or one operation between layers.

    Attributes:
        name: of the layer in the network; its second call is `<name>#2`. Of the value that the call gives, too.
        made_by: the layer, or the name of the operation: FLATTEN, ADD, or one without an equivalent in other formats.
        inputs: names of the values that it takes.
        shape: of its result for one sample and one step.
    """

    name: str
    made_by: nn.Module | str
    inputs: tuple[str, ...]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Flow:
    """The calls of a network in the order of computation, and the name of the value that it returns."""

    calls: tuple[Call, ...]
    output: str


@torch.no_grad()
def record_flow(model: nn.Module, x: Tensor) -> Flow:
    """What the network, in evaluation, computes for the input x [1, C, H, W] of one time step.

    Raises ConfigError for a layer that runs inside another, or a result that does not depend on the input.
    """
    x = torch.cat([x, x])  # a batch axis of 1 could not be told from one of time
    recorder = _Recorder(x)
    layers = [(name, layer) for name, layer in model.named_modules() if _is_whole(layer)]
    handles = [layer.register_forward_pre_hook(partial(recorder.enter, name)) for name, layer in layers]
    handles += [layer.register_forward_hook(partial(recorder.leave, name)) for name, layer in layers]
    try:
        with streaming(StreamPass(0, {})), recorder:
            output = model(x)
    finally:
        for handle in handles:
            handle.remove()
    return Flow(tuple(recorder.calls), recorder.name_of(output, "the network"))


def _is_whole(layer: nn.Module) -> bool:
    """Whether a layer is recorded as one call, whatever it computes inside."""
    return isinstance(layer, ActivationLayer | ChannelNorm | nn.Conv2d | nn.Linear) or not list(layer.children())


class _Recorder(TorchFunctionMode):
    """Follows tensors from layer to layer by their identity, so it keeps all of them."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self._names = {id(x): INPUT}
        self._kept = [x]
        self._inside: list[str] = []

    def name_of(self, value: Any, reader: str) -> str:
        """The name of a value that `reader` takes. Raises ConfigError if nothing recorded computed it."""
        name = self._names.get(id(value)) if isinstance(value, Tensor) else None
        if name is None:
            raise ConfigError(f"'{reader}': its input does not come from the network's layers, so it cannot be traced.")
        return name

    def enter(self, name: str, layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        """Before a layer."""
        if self._inside and not name.startswith(f"{self._inside[0]}."):
            raise ConfigError(f"layer '{name}': runs inside layer '{self._inside[0]}', so it cannot be separated.")
        self._inside.append(name)

    def leave(self, name: str, layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        """After a layer."""
        self._inside.pop()
        if self._inside:
            return
        given = tuple(self.name_of(value, f"layer '{name}'") for value in inputs if isinstance(value, Tensor))
        if isinstance(layer, WITHOUT_EFFECT):
            self._keep(output, given[0])
        else:
            self._add(name, layer, given, output)

    @override
    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        values = [value for value in _tensors((args, kwargs or {})) if id(value) in self._names]
        operation = (resolve_name(func) or str(func)).rpartition(".")[2]
        in_place = operation.startswith("__i") or (operation.endswith("_") and not operation.endswith("__"))
        if self._inside or not values or not isinstance(result, Tensor) or (id(result) in self._names and not in_place):
            return result
        names = tuple(self._names[id(value)] for value in values)
        if self._passes_on(func, values[0], result, kwargs or {}):
            self._keep(result, names[0])
        elif func in RESHAPES and result.shape == values[0].flatten(1).shape:
            self._add(FLATTEN, FLATTEN, names, result)
        elif func in SUMS and len(values) == 2 and not kwargs:
            self._add(ADD, ADD, names, result)
        else:
            self._add(operation, operation, names, result)
        return result

    @staticmethod
    def _passes_on(func: Callable[..., Any], given: Tensor, result: Tensor, kwargs: dict[str, Any]) -> bool:
        """Whether an operation leaves the values and their order in a sample as they are."""
        if func is F.dropout:
            return not kwargs.get("training", True)
        if func is torch.cat or func in COPIES:  # cat: one step, which a network would repeat in time
            return given.shape == result.shape and given.dtype == result.dtype
        return func in RESHAPES and _from_batch(given.shape) == _from_batch(result.shape)

    def _add(self, name: str, made_by: nn.Module | str, inputs: tuple[str, ...], output: Any) -> None:
        if not isinstance(output, Tensor):
            raise ConfigError(f"layer '{name}': returns no single tensor, so it cannot be traced.")
        calls = sum(call.name == name or call.name.startswith(f"{name}#") for call in self.calls)
        unique = f"{name}#{calls + 1}" if calls else name
        self.calls.append(Call(unique, made_by, inputs, _from_batch(tuple(output.shape))[1:]))
        self._keep(output, unique)

    def _keep(self, value: Tensor, name: str) -> None:
        self._names[id(value)] = name
        self._kept.append(value)


def _tensors(value: Any) -> Iterable[Tensor]:
    """All tensors in nested tuples, lists and dictionaries."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors(tuple(value.values()))
    elif isinstance(value, tuple | list):
        for one in value:
            yield from _tensors(one)


def _from_batch(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape from the batch axis on, without that of time."""
    return next((shape[axis:] for axis, size in enumerate(shape) if size != 1), ())
