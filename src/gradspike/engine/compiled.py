"""The formulas through torch.compile. One kernel serves all layers that differ only in size.

Sizes are symbolic, so another batch size, another width or a smaller last batch needs no recompilation. The key of a
kernel is T, arrangement, kind of norm, surrogate, dtypes, wanted gradients, and which sizes are 1. Kernels are compiled
on small tensors of fixed sizes, so a run gets the same kernels in any order of its passes. torch caches compiled code
on disk for later runs.
"""

from __future__ import annotations

import functools
import logging
import os
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from gradspike.engine import formulas
from gradspike.engine.direct import DirectCall, Recorder, alike, leaves
from gradspike.engine.examples import examples, tensors_of
from gradspike.engine.fused import FusedEngine
from gradspike.engine.norm_formulas import MOST_RECOMPUTED
from gradspike.engine.records import Affine, Arriving, Fired, Gradients, Inputs, Part, Spec, Step, Wanted
from gradspike.errors import UserError, first_line
from gradspike.exhausted import means_full_disk
from gradspike.neurons.base import State, is_mixture
from gradspike.private_names import found
from gradspike.shown import listed
from gradspike.variables import whole_number

log = logging.getLogger(__name__)

TorchDynamoException: type[Exception] = found("torch._dynamo.exc.TorchDynamoException", RuntimeError)

_one_at_a_time = threading.RLock()  # a pass of one thread, and the backward pass of another

RECOMPUTING: dict[str, Any] = {
    "realize_opcount_threshold": 300,
    "realize_reads_threshold": 1000,
    "realize_acc_reads_threshold": 1000,
}
"""Inductor's limits under which a kernel computes its intermediate values again in each pass over memory. By default it
stores them in new tensors, and reading and writing those takes longer than the arithmetic. It does so up to
`MOST_RECOMPUTED` time steps; with more, tracing takes too long: 19 s at T = 4."""


MOST_DIRECT = 1000
"""Kinds of calls to keep; images of ever new sizes would add one each."""


class CompiledKernels:
    """The functions of `formulas`, each compiled when first needed."""

    def __reduce__(self) -> str:
        """Copied and pickled layers share the kernels, which have no state of a layer."""
        return "KERNELS"

    def __init__(self) -> None:
        self._compiled: dict[Hashable, tuple[Callable[..., Any], Recorder]] = {}
        self._direct: dict[Hashable, DirectCall] = {}

    def batch_statistics(self, y: Tensor, dtype: torch.dtype, spec: Spec) -> tuple[Tensor, Tensor]:
        """See `formulas.batch_statistics`."""
        return self._call(formulas.batch_statistics, spec, y, dtype=dtype)  # type: ignore[no-any-return]

    def forward(self, inputs: Inputs, shifts: Tensor | None, spec: Spec) -> Fired:
        """See `formulas.forward`."""
        return self._call(formulas.forward, spec, inputs, shifts)  # type: ignore[no-any-return]

    def forward_part(
        self, inputs: Inputs, shifts: Tensor | None, part: Part, spec: Spec
    ) -> tuple[State, Tensor | None, Tensor | None]:
        """See `formulas.forward_part`."""
        return self._call(formulas.forward_part, spec, inputs, shifts, part)  # type: ignore[no-any-return]

    def advance(
        self, y: Tensor, previous: Step | None, affine: Affine, values: tuple[Tensor, ...], spec: Spec
    ) -> tuple[Tensor, Tensor, Tensor, State]:
        """See `formulas.advance`."""
        return self._call(formulas.advance, spec, y, previous, affine, values)  # type: ignore[no-any-return]

    def finish(self, last: Step, spec: Spec) -> None:
        """See `formulas.finish`."""
        self._call(formulas.finish, spec, last)

    def backward(self, inputs: Inputs, arriving: Arriving, spec: Spec, wanted: Wanted) -> Gradients:
        """See `formulas.backward`."""
        return self._call(formulas.backward, spec, inputs, arriving, wanted=wanted)  # type: ignore[no-any-return]

    def backward_part(
        self, inputs: Inputs, arriving: Arriving, part: Part, spec: Spec, wanted: Wanted
    ) -> tuple[Gradients, State]:
        """See `formulas.backward_part`."""
        return self._call(formulas.backward_part, spec, inputs, arriving, part, wanted=wanted)  # type: ignore[no-any-return]

    def add_through_statistics(self, grad_y: Tensor, y: Tensor, slope: Tensor, offset: Tensor, spec: Spec) -> None:
        """See `formulas.add_through_statistics`."""
        self._call(formulas.add_through_statistics, spec, grad_y, y, slope, offset)

    def _call(self, formula: Any, spec: Spec, *values: Any, **constants: Hashable) -> Any:
        """Apply a formula to tensors, or records of tensors. `constants` are compiled in."""
        tensors = leaves(values)
        assert tensors[0] is not None
        # Global state that would make torch.compile recompile, at the current sizes.
        state = (torch.are_deterministic_algorithms_enabled(), torch.get_num_threads(), torch.get_default_dtype())
        key = (formula.__name__, spec, *state, *constants.values())
        direct = formula in PURE and not torch.is_grad_enabled()
        exact = (key, alike(tensors)) if direct else None
        if direct and (known := self._direct.get(exact)) is not None:
            return known(tensors)
        key += tuple(_kind(value) for value in values)
        compiled = self._compiled.get(key)
        if compiled is None:
            compiled = self._compiled[key] = self._compile(formula, spec, values, constants)
        function, recorder = compiled
        recorder.take()
        with without_autocast(tensors[0].device.type):
            try:
                result = function(*values)
            except TorchDynamoException as error:
                raise _failure(formula.__name__, spec, list(values), error) from error
        last = recorder.take()
        if direct and last is not None and (call := DirectCall.of(last, tensors, result)) is not None:
            if len(self._direct) >= MOST_DIRECT:
                self._direct.clear()
            self._direct[exact] = call
        return result

    def _compile(
        self, formula: Any, spec: Spec, values: tuple[Any, ...], constants: dict[str, Any]
    ) -> tuple[Callable[..., Any], Recorder]:
        small = examples(formula, values, spec)
        device = next(tensors_of(small)).device.type
        if not self._compiled:
            log.info("Compiling norms and neurons for this machine; later runs find most of it in %s", cache_dir())
        start = time.perf_counter()
        options = kernel_options(device)
        if formula in (formulas.forward, formulas.backward) and _recomputes(spec, device):
            options |= RECOMPUTING
        if spec.rules is not None and is_mixture(spec.rules.neuron):
            # Without a reset, the spikes of one pass do not enter the potentials of the other.
            options["cpp.enable_floating_point_contract_flag"] = "fast"
        recorder = Recorder(options)
        function: Callable[..., Any] = torch.compile(  # type: ignore[call-overload]
            _fixed(formula, spec, constants),
            fullgraph=True,
            dynamic=True,
            backend=recorder,
            options={"guard_filter_fn": _of_arguments},
        )
        try:
            with (
                torch.no_grad(),
                _whichever_libdevice(),
                without_autocast(device),
                _independent_sizes(),
                _constants(),
                _rules_made_once(),
            ):
                function(*small)
        except Exception as error:
            raise _failure(formula.__name__, spec, small, error) from error
        what = _described(formula.__name__, spec, small)
        log.debug("compiled in %.1f s: %s", time.perf_counter() - start, what)
        return function, recorder


KERNELS = CompiledKernels()
run = FusedEngine(KERNELS)


@functools.cache
def compiler_problem(device: str) -> str | None:
    """Why torch.compile does not work for "cpu" or "cuda" here, in one line; None if it does. Tries it once."""
    # This process's own device. Otherwise every process of a node would take memory on the first one.
    place = torch.device("cuda", _own_gpu()) if device == "cuda" else torch.device(device)
    try:
        trial: Any = torch.compile(_own(_trial), fullgraph=True, options=compile_options(device))
        with _whichever_libdevice():
            trial(torch.ones(64, device=place))
    except Exception as error:
        return why_not_compiled(error, device)
    return None


def why_not_compiled(error: BaseException, device: str = "") -> str:
    """Why torch.compile failed, as part of a sentence; with what it needs on a device, unless the disk is full."""
    if means_full_disk(error):
        places = listed(dict.fromkeys((cache_dir(), os.environ.get("TMPDIR") or tempfile.gettempdir())))
        return f"no space left: free some in {places}, or set TORCHINDUCTOR_CACHE_DIR and TMPDIR to other folders"
    needed = {"cpu": "; it needs a C++ compiler", "cuda": "; it needs Triton"}.get(device, "")
    return f"{first_line(error)}{needed}"


def _own_gpu() -> int:
    """The GPU of this process; LOCAL_RANK may belong to a surrounding program."""
    local = whole_number("LOCAL_RANK") or 0
    return local if local < torch.cuda.device_count() else 0


def compile_options(device: str) -> dict[str, Any]:
    """Options of torch.compile under which forward and backward kernels fire the same spikes.

    The backward pass recomputes the potential. A multiply-add that is fused in one kernel and not in the other rounds
    differently, and u >= theta turns the last bit into a spike.

    Inductor's own settings belong to a thread: the first backward kernel is compiled by autograd's thread of the GPU,
    where `torch.use_deterministic_algorithms` has not changed them.
    """
    options: dict[str, Any] = {
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "cpp.enable_floating_point_contract_flag": "off",
    }
    if device == "cuda":
        # Triton's switch for fusing has no name of its own. The rest of this option concerns arithmetic in bf16, of
        # which the formulas have none.
        options["emulate_precision_casts"] = True
    return options


def _of_arguments(guards: Sequence[Any]) -> list[bool]:
    """Which of torch's guards a call of a kernel checks: those of its tensors and of global state.

    The others, up to 300, compare code and constants, which the key of a kernel determines.
    """
    return [guard.name.startswith("values") or not guard.name for guard in guards]


def kernel_options(device: str) -> dict[str, Any]:
    """Options of torch.compile for the kernels of a layer.

    On CUDA, Inductor by default stacks the spikes of up to 8 steps in another kernel, which reads the potentials of all
    steps from memory, in float32. With limits of 0, the kernel that fires writes each step in place.
    """
    options = compile_options(device)
    if device == "cuda":
        known: list[str] = found("torch._inductor.list_options", list)()
        limits = ("max_pointwise_cat_inputs", "max_complex_pointwise_cat_inputs")
        options |= {name: 0 for name in limits if name in known}
    return options


def _recomputes(spec: Spec, device: str) -> bool:
    return device == "cpu" and spec.time_steps <= MOST_RECOMPUTED


@contextmanager
def _whichever_libdevice() -> Iterator[None]:
    """No warning of Triton's own libdevice: both passes use the same one."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*Triton's bundled libdevice")
        yield


def _independent_sizes() -> AbstractContextManager[None]:
    """Sizes that are equal in an example stay independent; without this option, other sizes may compile again."""
    return found("torch.fx.experimental._config.patch", _without_option)(use_duck_shape=False)


def _constants() -> AbstractContextManager[None]:
    """Numbers of a spec, such as eps, are constants of its kernel; as variables, torch traces the kernel twice."""
    return found("torch._dynamo.config.patch", _without_option)(specialize_float=True)


@contextmanager
def _rules_made_once() -> Iterator[None]:
    """Inductor's table of result dtypes is filled once for a kernel, not again for each of its thousands of operations.

    That takes up to a sixth of the processor time of a compilation.
    """
    table: Any = found("torch._inductor.dtype_propagation.DtypePropagationOpsHandler", None)
    if table is None:
        yield
        return
    with _one_at_a_time:
        fill, filled = table.__init__, False

        def once(self: object) -> None:  # of the only object of this class
            nonlocal filled
            if not filled:
                fill(self)
                filled = True

        table.__init__ = once
        try:
            yield
        finally:
            table.__init__ = fill


def _without_option(**options: bool) -> AbstractContextManager[None]:
    return nullcontext()


def cache_dir() -> str:
    """Where torch caches compiled code (TORCHINDUCTOR_CACHE_DIR)."""
    return found("torch._inductor.runtime.cache_dir_utils.cache_dir", _named_cache_dir)()


def _named_cache_dir() -> str:
    return os.environ.get("TORCHINDUCTOR_CACHE_DIR", "torch's cache folder")


PURE = (formulas.batch_statistics, formulas.forward, formulas.backward)
"""Formulas that write to none of their arguments, which may then share memory."""


@contextmanager
def without_autocast(device: str) -> Iterator[None]:
    """Disable autocast: the recursion chooses its own dtypes, and torch would compile a second variant with it."""
    if torch.is_autocast_enabled(device):
        with torch.autocast(device, enabled=False):
            yield
    else:
        yield


def _trial(x: Tensor) -> Tensor:
    return (x * 2 + 1).sum()


def _fixed(formula: Any, spec: Spec, constants: dict[str, Any]) -> Callable[..., Any]:
    """The formula with its constants, as a function with its own code object.

    torch.compile counts the variants of a code object and gives up after a few.
    """
    own = _own(formula)

    def fixed(*values: Any) -> Any:
        return own(*values, spec=spec, **constants)

    fixed.__code__ = fixed.__code__.replace(co_name=f"{formula.__name__}_fixed")
    return fixed


def _own(function: Any) -> Any:
    """The same function with its own code object."""
    code = function.__code__.replace(co_name=f"{function.__name__}_compiled")
    return FunctionType(code, function.__globals__, function.__name__, function.__defaults__, function.__closure__)


def _kind(value: Any) -> Hashable:
    """The properties of a tensor that a kernel depends on: dtype, device, inference mode, and which sizes are 1."""
    if value is None:
        return None
    if isinstance(value, tuple):
        return tuple(_kind(part) for part in value)
    return value.dtype, value.device, value.is_inference(), tuple(size == 1 for size in value.shape)


def _described(formula: str, spec: Spec, values: list[Any]) -> str:
    first = next(tensors_of(values))
    neuron = [] if spec.rules is None else [spec.rules.neuron.__name__]
    norm = {"batch": "statistics of the batch", "given": "given statistics", "none": "no norm"}[spec.norm]
    still = ["still input"] if first.ndim == 4 and first.shape[0] == 1 < spec.time_steps else []
    layout = "channels-last" if spec.arrangement == "rows" else "contiguous"
    return ", ".join(
        [formula, *neuron, f"T = {spec.time_steps}", *still, norm, layout, str(first.dtype).removeprefix("torch.")]
    )


def _failure(formula: str, spec: Spec, values: list[Any], error: Exception) -> UserError:
    what = _described(formula, spec, values)
    return UserError(
        f"torch.compile cannot compile '{what}' on this machine ({why_not_compiled(error)}). Use engine=eager, which "
        "needs no compiler."
    )
