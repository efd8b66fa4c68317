"""The formulas through torch.compile: one kernel for all layers that differ in size only.

Sizes are symbols, so that another batch, another width or the last, smaller batch of an epoch compile nothing. What a
kernel is compiled for is in its key: T, arrangement, kind of norm, surrogate, dtypes, which gradients are wanted, and
which sizes are 1. It is compiled on small tensors of fixed sizes before its first use, so that the same run finds the
same kernel whatever it computes first; torch keeps what it compiled on disk for later runs.
"""

from __future__ import annotations

import functools
import logging
import os
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from types import FunctionType
from typing import Any

import torch
import torch._inductor.runtime.cache_dir_utils
import torch.fx.experimental._config
from torch import Tensor
from torch._dynamo.exc import TorchDynamoException

from gradspike.engine import formulas
from gradspike.engine.formulas import Affine, Fired, Gradients, Spec, Wanted
from gradspike.engine.fused import FusedEngine
from gradspike.errors import UserError

log = logging.getLogger(__name__)

SIZES = {"P": 8, "Q": 24, "S": 24, "C": 32}
"""Sizes that kernels are compiled on; none is 1, which torch.compile would take for a constant."""


class CompiledKernels:
    """The functions of `formulas`, compiled when they are first needed."""

    def __reduce__(self) -> str:
        """Copied and pickled layers share the kernels, which belong to no layer."""
        return "KERNELS"

    def __init__(self) -> None:
        self._compiled: dict[Hashable, Callable[..., Any]] = {}

    def batch_statistics(self, y: Tensor, dtype: torch.dtype, spec: Spec) -> tuple[Tensor, Tensor]:
        """See `formulas.batch_statistics`."""
        return self._call(formulas.batch_statistics, spec, (y, axes(spec)), dtype=dtype)  # type: ignore[no-any-return]

    def forward(
        self,
        y: Tensor,
        affine: Affine,
        decay: Tensor,
        thresholds: Tensor,
        widths: Tensor,
        shifts: Tensor | None,
        spec: Spec,
    ) -> Fired:
        """See `formulas.forward`."""
        return self._call(  # type: ignore[no-any-return]
            formulas.forward,
            spec,
            (y, axes(spec)),
            (affine, "C"),
            (decay, ""),
            (thresholds, "TC"),
            (widths, "TC"),
            (shifts, "TC"),
        )

    def advance(
        self,
        y: Tensor,
        u: Tensor | None,
        threshold: Tensor | None,
        width: Tensor | None,
        spikes: Tensor | None,
        affine: Affine,
        decay: Tensor,
        spec: Spec,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `formulas.advance`."""
        step = axes(spec)[1:]
        return self._call(  # type: ignore[no-any-return]
            formulas.advance,
            spec,
            (y, axes(spec)),
            (u, step),
            (threshold, "C"),
            (width, "C"),
            (spikes, step),
            (affine, "C"),
            (decay, ""),
        )

    def finish(self, u: Tensor, threshold: Tensor, width: Tensor, spikes: Tensor, spec: Spec) -> None:
        """See `formulas.finish`."""
        step = axes(spec)[1:]
        self._call(formulas.finish, spec, (u, step), (threshold, "C"), (width, "C"), (spikes, step))

    def backward(
        self,
        grad_spikes: Tensor,
        grad_u_mean: Tensor | None,
        grad_u_variance: Tensor | None,
        y: Tensor,
        affine: Affine,
        decay: Tensor,
        thresholds: Tensor,
        widths: Tensor,
        u_mean: Tensor | None,
        spec: Spec,
        wanted: Wanted,
    ) -> Gradients:
        """See `formulas.backward`."""
        return self._call(  # type: ignore[no-any-return]
            formulas.backward,
            spec,
            (grad_spikes, axes(spec)),
            (grad_u_mean, "T"),
            (grad_u_variance, "T"),
            (y, axes(spec)),
            (affine, "C"),
            (decay, ""),
            (thresholds, "TC"),
            (widths, "TC"),
            (u_mean, "T"),
            wanted=wanted,
        )

    def _call(self, formula: Any, spec: Spec, *arguments: tuple[Any, str], **constants: Hashable) -> Any:
        """The formula of tensors (or tuples of them) and their axes; `constants` are compiled in."""
        values = [value for value, _ in arguments]
        # What torch.compile would compile anew for, at the sizes of the moment.
        state = (torch.are_deterministic_algorithms_enabled(), torch.get_num_threads(), torch.get_default_dtype())
        key = (formula.__name__, spec, *state, *constants.values(), *(_kind(value) for value in values))
        function = self._compiled.get(key)
        if function is None:
            function = self._compile(formula, spec, arguments, constants)
            self._compiled[key] = function
        with without_autocast(values[0].device.type):
            try:
                return function(*values)
            except TorchDynamoException as error:
                raise _failure(formula.__name__, spec, values[0], error) from error

    def _compile(
        self, formula: Any, spec: Spec, arguments: tuple[tuple[Any, str], ...], constants: dict[str, Any]
    ) -> Callable[..., Any]:
        examples = [_example(value, names, spec.time_steps) for value, names in arguments]
        if not self._compiled:
            log.info("Compiling norms and neurons for this machine; later runs find most of it in %s", cache_dir())
        start = time.perf_counter()
        function = torch.compile(_fixed(formula, spec, constants), fullgraph=True, dynamic=True)
        try:
            # Sizes that happen to be equal here are not so elsewhere.
            with (
                torch.no_grad(),
                without_autocast(examples[0].device.type),
                torch.fx.experimental._config.patch(use_duck_shape=False),  # type: ignore[attr-defined]
            ):
                function(*examples)
        except Exception as error:
            raise _failure(formula.__name__, spec, examples[0], error) from error
        what = _described(formula.__name__, spec, examples[0])
        log.info("  %4.1f s: %s", time.perf_counter() - start, what)
        return function


KERNELS = CompiledKernels()
run = FusedEngine(KERNELS)


@functools.cache
def compiler_problem(device: str) -> str | None:
    """Why torch.compile cannot make a kernel for "cpu" or "cuda" here, in a line; None where it can. Tries it once."""
    # The device of this process: another one would take memory there for every process of a node.
    place = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if device == "cuda" else torch.device(device)
    try:
        trial: Any = torch.compile(_own(_trial), fullgraph=True)
        trial(torch.ones(64, device=place))
    except Exception as error:
        return _first_line(error)
    return None


def cache_dir() -> str:
    """Where torch keeps what it compiled, TORCHINDUCTOR_CACHE_DIR."""
    return torch._inductor.runtime.cache_dir_utils.cache_dir()


def axes(spec: Spec) -> str:
    """Names of the axes of a layer's values."""
    return "TPQC" if spec.arrangement == "rows" else "TPCS"


@contextmanager
def without_autocast(device: str) -> Iterator[None]:
    """The recursion has its own dtypes; and a function compiled under autocast is another one."""
    if torch.is_autocast_enabled(device):
        with torch.autocast(device, enabled=False):
            yield
    else:
        yield


def _trial(x: Tensor) -> Tensor:
    return (x * 2 + 1).sum()


def _fixed(formula: Any, spec: Spec, constants: dict[str, Any]) -> Callable[..., Any]:
    """The formula with its constants, as a function of its own: torch.compile counts the variants of a function's
    code and gives up beyond a few.
    """
    own = _own(formula)

    def fixed(*values: Any) -> Any:
        return own(*values, spec=spec, **constants)

    fixed.__code__ = fixed.__code__.replace(co_name=f"{formula.__name__}_fixed")
    return fixed


def _own(function: Any) -> Any:
    """The same function with code of its own."""
    code = function.__code__.replace(co_name=f"{function.__name__}_compiled")
    return FunctionType(code, function.__globals__, function.__name__, function.__defaults__, function.__closure__)


def _kind(value: Any) -> Hashable:
    """What a kernel depends on in a tensor: its dtype, device, inference mode, and which sizes are 1."""
    if value is None:
        return None
    if isinstance(value, tuple):
        return tuple(_kind(part) for part in value)
    return value.dtype, value.device, value.is_inference(), tuple(size == 1 for size in value.shape)


def _example(value: Any, names: str, time_steps: int) -> Any:
    """Small tensors of fixed sizes and the same kind. A size of 1 stays."""
    if value is None:
        return None
    if isinstance(value, tuple):
        return type(value)(*(_example(part, names, time_steps) for part in value))
    sizes = {**SIZES, "T": time_steps}
    shape = [1 if size == 1 else sizes[name] for size, name in zip(value.shape, names, strict=False)]
    with torch.inference_mode(value.is_inference()):
        return value.new_zeros(shape)


def _described(formula: str, spec: Spec, first: Tensor) -> str:
    norm = {"batch": "statistics of the batch", "given": "given statistics", "none": "no norm"}[spec.norm]
    still = ["still input"] if first.ndim == 4 and first.shape[0] == 1 < spec.time_steps else []
    layout = "channels-last" if spec.arrangement == "rows" else "contiguous"
    return ", ".join([formula, f"T = {spec.time_steps}", *still, norm, layout, str(first.dtype).removeprefix("torch.")])


def _failure(formula: str, spec: Spec, first: Tensor, error: Exception) -> UserError:
    what = _described(formula, spec, first)
    return UserError(f"'{what}' cannot be compiled here ({_first_line(error)}). engine=eager does without.")


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
