"""`torch.cuda.make_graphed_callables` on a CPU: a pass is recorded as operations and repeated without its Python.

As with a CUDA graph, a repetition works on the memory of the recorded pass, and the host can read no value while a pass
is recorded. Kernels that do not go through torch's dispatcher are not recorded, so layers need `engine=eager`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Recording(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The operations of a pass in order, with their arguments and results."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._operations: list[tuple[Any, Any, Any, list[Any]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("operation not permitted when stream is capturing")
        results = func(*args, **(kwargs or {}))
        self._operations.append((func, args, kwargs or {}, tree_leaves(results)))
        return results

    @torch.no_grad()
    def repeat(self) -> None:
        """Run all operations again and write their results where they were."""
        with torch.autocast("cpu", enabled=False):
            for func, args, kwargs, before in self._operations:
                for old, new in zip(before, tree_leaves(func(*args, **kwargs)), strict=True):
                    if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                        old.copy_(new)


def make_graphed_callables(
    module: nn.Module, sample_args: tuple[Tensor], num_warmup_iters: int = 3, allow_unused_input: bool = False
) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """Like torch's, for one module with one input and a tuple as its output."""
    assert not torch.is_autocast_cache_enabled()
    static = [*sample_args, *module.parameters()]
    for _ in range(num_warmup_iters):
        _backward(module(*sample_args), static, None, allow_unused_input)
    with Recording() as forward:
        outputs = module(*sample_args)
    arriving = [torch.empty_like(output) if output.requires_grad else None for output in outputs]
    with Recording() as backward:
        gradients = _backward(outputs, static, arriving, allow_unused_input)

    class Graphed(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Tensor) -> tuple[Tensor, ...]:
            sample_args[0].copy_(inputs[0])
            forward.repeat()
            return tuple(output.detach() for output in outputs)

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
            for place, grad in zip(arriving, grads, strict=True):
                if place is not None:
                    place.copy_(grad)
            backward.repeat()
            found = iter(gradients)
            each = [next(found) if tensor.requires_grad else None for tensor in static]
            return tuple(None if grad is None else grad.detach() for grad in each)

    return lambda *inputs: Graphed.apply(*inputs, *module.parameters())


def _backward(
    outputs: Sequence[Tensor], static: list[Tensor], arriving: list[Tensor | None] | None, allow_unused: bool
) -> tuple[Tensor | None, ...]:
    into = [output for output in outputs if output.requires_grad]
    grads = [torch.ones_like(one) for one in into] if arriving is None else [one for one in arriving if one is not None]
    wanted = [tensor for tensor in static if tensor.requires_grad]
    return torch.autograd.grad(into, wanted, grads, allow_unused=allow_unused)
