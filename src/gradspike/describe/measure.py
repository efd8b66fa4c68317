"""What a network costs, measured on the network itself: shapes, parameters, MACs, activations kept for the backward."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from gradspike.config import ExperimentConfig
from gradspike.models.build import build_model, report_of
from gradspike.spiking_norm import NormReLU, SpikingNorm

BATCH = 2  # training needs two samples to normalise over; the difference to three is what one sample costs

OUTSIDE = "(outside of layers)"


@dataclass(frozen=True)
class Layer:
    """One row: for one sample and all time steps."""

    name: str
    kind: str
    steps: int
    """How often it is computed: 1 where its input does not change over time; 0 for what is no single computation."""
    output: tuple[int, ...]
    """Shape of one step's output for one sample."""
    parameters: int
    macs: int
    kept_bytes: int


@dataclass(frozen=True)
class Description:
    """A network's layers in the order in which they are computed."""

    layers: tuple[Layer, ...]
    report: tuple[str, ...] = ()
    """Lines on what was converted and what was left, for a network that was made from another one."""

    def totals(self) -> dict[str, int]:
        """Parameters, MACs and kept bytes of the whole network."""
        return {
            "parameters": sum(layer.parameters for layer in self.layers),
            "macs": sum(layer.macs for layer in self.layers),
            "kept_bytes": sum(layer.kept_bytes for layer in self.layers),
        }


@dataclass
class _Record:
    """What one module did by itself during a pass, its inner layers apart."""

    flops: int = 0
    saved: int = 0
    output: tuple[int, ...] | None = None
    changed: bool = True
    calls: int = 0


@dataclass
class _Pass:
    """Records by module name, in the order in which modules were entered first."""

    records: dict[str, _Record] = field(default_factory=dict)
    stack: list[str] = field(default_factory=list)

    def now(self) -> _Record:
        """The record of the module that is being computed."""
        return self.records.setdefault(self.stack[-1] if self.stack else OUTSIDE, _Record())


def measure(config: ExperimentConfig) -> Description:
    """Build the network of a configuration on the CPU and measure it with random inputs."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build_model(config)
        if config.trainer.channels_last:
            model = model.to(memory_format=torch.channels_last)
        model.eval()
        with torch.no_grad():
            counted = count_flops(model, _inputs(config, 1))
        small, large = (
            count_saved(model, _inputs(config, batch), config.trainer.precision) for batch in (BATCH, BATCH + 1)
        )
    own = _own_parameters(model)
    layers = []
    for name, record in counted.records.items():
        kept = large.records[name].saved - small.records[name].saved if name in large.records else 0
        module = model.get_submodule(name) if name != OUTSIDE else model
        parameters = own.pop(name, 0)
        free = not (record.flops or kept or parameters)
        if free and (record.output is None or next(module.children(), None) is not None or not record.changed):
            continue  # a container, or a layer that does nothing
        steps, *shape = record.output or (0,)
        kind = _kind(module) if record.calls <= 1 else f"{_kind(module)}, {record.calls} times"
        layers.append(Layer(name, kind, steps, tuple(shape), parameters, record.flops // 2, kept))
    layers += [Layer(name, "not called", 0, (), count, 0, 0) for name, count in own.items() if count]
    return Description(tuple(layers), report_of(model))


def _inputs(config: ExperimentConfig, batch: int) -> Tensor:
    """Random images [B, C, H, W] or frames [T, B, C, H, W] of 0 to 1."""
    size = config.dataset.image_size
    shape: tuple[int, ...] = (batch, config.dataset.channels, size, size)
    if config.dataset.kind == "frames":
        return torch.rand(config.time_steps, *shape)
    inputs = torch.rand(shape)
    return inputs.contiguous(memory_format=torch.channels_last) if config.trainer.channels_last else inputs


def count_flops(model: nn.Module, inputs: Tensor) -> _Pass:
    """One pass without gradients: what torch counts as FLOPs, each layer's output, and the layers' order."""
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
    """A training pass: bytes that autograd keeps, each storage once; not those of parameters, buffers and `apart`."""
    found = _Pass()
    known = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers(), *apart)}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            known.add(storage.data_ptr())
            found.now().saved += storage.nbytes()
        return tensor  # which autograd holds until the backward, so that no storage is given out a second time

    model.train()
    bf16 = torch.autocast(inputs.device.type, torch.bfloat16) if precision == "bf16" else nullcontext()
    with _following(model, found), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), bf16:
        logits = model(inputs)
    del logits
    return found


@contextmanager
def _following(model: nn.Module, found: _Pass, book: Any = lambda: None) -> Iterator[None]:
    """Keep `found.stack` at the innermost layer that is being computed; `book` is called before each change of it."""
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
    """Modules below `model` by name; a norm with its neuron and method is one layer."""
    for child_name, child in model.named_children():
        full = f"{name}.{child_name}" if name else child_name
        yield full, child
        if not isinstance(child, SpikingNorm | NormReLU):
            yield from layers_of(child, full)


def _own_parameters(model: nn.Module) -> dict[str, int]:
    """Number of parameters of each layer, its inner layers' apart; each parameter once."""
    seen: set[int] = set()
    counts: dict[str, int] = {}
    for name, module in [(OUTSIDE, model), *layers_of(model)]:
        whole = isinstance(module, SpikingNorm | NormReLU)
        parameters = [one for one in module.parameters(recurse=whole) if id(one) not in seen]
        seen.update(id(one) for one in parameters)
        counts[name] = sum(one.numel() for one in parameters)
    return counts


def _kind(module: nn.Module) -> str:
    """The class of a layer, and a convolution's kernel and stride."""
    kind = type(module).__name__
    if not isinstance(module, nn.Conv2d):
        return kind
    kernel = "x".join(str(side) for side in module.kernel_size)
    stride = "" if set(module.stride) == {1} else f" /{module.stride[0]}"
    return f"{kind} {kernel}{stride}"
