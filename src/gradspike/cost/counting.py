"""Count the FLOPs of a pass, and the tensors it keeps for its backward pass, layer by layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from gradspike.spiking_norm import ActivationLayer

OUTSIDE = "(outside of layers)"


@dataclass
class _Record:
    """The work of one module during a pass, without its inner layers."""

    flops: int = 0
    saved: int = 0
    output: tuple[int, ...] | None = None
    changed: bool = True
    calls: int = 0


@dataclass
class _Pass:
    """Records by module name, in the order of the first calls."""

    records: dict[str, _Record] = field(default_factory=dict)
    stack: list[str] = field(default_factory=list)

    def now(self) -> _Record:
        """The record of the running module."""
        return self.records.setdefault(self.stack[-1] if self.stack else OUTSIDE, _Record())


def count_flops(model: nn.Module, inputs: Tensor) -> _Pass:
    """One pass without gradients: FLOPs as torch counts them, each layer's output, and the layers' order."""
    found = _Pass()
    total = 0

    def book() -> None:
        nonlocal total
        flops = counter.get_total_flops()
        if flops > total:
            found.now().flops += flops - total
        total = flops

    counter = FlopCounterMode(display=False)
    with counter, _following(model, found, book):
        model(inputs)
        book()
    return found


def count_saved(model: nn.Module, inputs: Tensor, precision: str, apart: Sequence[Tensor] = ()) -> _Pass:
    """A training pass: bytes that autograd keeps, each storage once, without parameters, buffers and `apart`."""
    found = _Pass()
    known = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers(), *apart)}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            known.add(storage.data_ptr())
            found.now().saved += storage.nbytes()
        return tensor  # autograd holds it until the backward pass, so its memory is not reused

    model.train()
    bf16 = torch.autocast(inputs.device.type, torch.bfloat16) if precision == "bf16" else nullcontext()
    with _following(model, found), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), bf16:
        logits = model(inputs)
    del logits
    return found


@contextmanager
def _following(model: nn.Module, found: _Pass, book: Any = lambda: None) -> Iterator[None]:
    """Keep the innermost running layer on top of `found.stack`; `book` is called before each change."""
    handles = []

    def enter(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any) -> None:
            book()
            found.stack.append(name)
            found.now()

        return hook

    def leave(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            book()
            found.stack.pop()
            if isinstance(output, Tensor):
                before = inputs[0].shape if inputs and isinstance(inputs[0], Tensor) else None
                record = found.records[name]
                record.output, record.changed = tuple(output.shape), output.shape != before
                record.calls += 1

        return hook

    for name, module in layers_of(model):
        handles.append(module.register_forward_pre_hook(enter(name)))
        handles.append(module.register_forward_hook(leave(name)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def layers_of(model: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Modules below `model` by name; a norm with its neuron and method is one layer, its feedback another before it."""
    for child_name, child in model.named_children():
        full = f"{name}.{child_name}" if name else child_name
        if isinstance(child, ActivationLayer) and child.feedback is not None:
            yield f"{full}.feedback", child.feedback
        yield full, child
        if not isinstance(child, ActivationLayer):
            yield from layers_of(child, full)
