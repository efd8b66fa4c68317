"""Calls of compiled kernels without torch.compile's wrapper."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from gradspike.engine import compiled, formulas
from gradspike.engine.direct import DirectCall, Recorder
from gradspike.engine.records import Spec
from gradspike.surrogate import SURROGATES
from helpers.engine_pairs import both
from helpers.method_checks import make_input, make_layer, method_config

SPEC = Spec(2, "planes", "none", 0.0, SURROGATES["rectangular"])


def test_later_calls_pass_by_the_wrapper(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the numbers of the new tensors, and only for tensors of the same sizes."""
    layer = make_layer(method_config("fixed_sg"))
    both(compiled.run, layer, make_input(), static=False)
    monkeypatch.setattr(compiled.KERNELS, "_compiled", {})
    monkeypatch.setattr(compiled.KERNELS, "_compile", lambda *_: pytest.fail("went through torch.compile"))
    expected, found = both(compiled.run, layer, make_input(7), static=False)
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-4)
    with pytest.raises(pytest.fail.Exception):
        both(compiled.run, layer, make_input(batch=3), static=False)


def test_calls_with_gradient_go_through_the_wrapper(monkeypatch: pytest.MonkeyPatch) -> None:
    """A function that was compiled for tensors without gradient would drop that of others."""

    class Forbidden(dict[Any, Any]):
        def get(self, *_: Any) -> Any:
            pytest.fail("passed by the wrapper")

    def formula(y: Tensor) -> tuple[Tensor, Tensor]:
        return formulas.batch_statistics(y, torch.float32, SPEC)

    kernels = compiled.CompiledKernels()
    monkeypatch.setattr(kernels, "_direct", Forbidden())
    monkeypatch.setattr(kernels, "_compile", lambda *_: (formula, Recorder({})))
    y = make_input(time_steps=2).unflatten(0, (2, -1)).flatten(3).requires_grad_()
    mean, _ = kernels.batch_statistics(y, torch.float32, SPEC)
    assert mean.requires_grad
    with torch.no_grad(), pytest.raises(pytest.fail.Exception):
        kernels.batch_statistics(y, torch.float32, SPEC)


class Pair(NamedTuple):
    """A record of a sum, nothing, and what `called` passes through."""

    total: Tensor
    nothing: None
    kept: tuple[Tensor, ...]


def called(tensors: list[Tensor], *, keeps: bool = False) -> DirectCall | None:
    """What a call of a compiled function with two tensors becomes."""

    def added(a: Tensor, b: Tensor) -> Any:
        return Pair(a + b, None, (a,) if keeps else ())

    recorder = Recorder({})
    function: Any = torch.compile(added, backend=recorder, fullgraph=True, dynamic=True)
    with torch.no_grad():
        record = function(*tensors)
    last = recorder.take()
    assert last is not None
    assert recorder.take() is None  # it keeps no tensor
    return DirectCall.of(last, tensors, record)


def test_a_call_takes_its_tensors_by_place_and_returns_the_record() -> None:
    call = called([torch.ones(3), torch.zeros(3)])
    assert call is not None
    found = call([torch.full((3,), 2.0), torch.full((3,), 5.0)])
    assert isinstance(found, Pair)
    assert torch.equal(found.total, torch.full((3,), 7.0))
    assert found[1:] == (None, ())


def test_a_call_that_is_not_understood_is_not_repeated() -> None:
    """One tensor at two places might be two tensors in the next call; an argument that returns is no result."""
    one = torch.ones(3)
    assert called([one, one]) is None
    assert called([torch.ones(3), torch.zeros(3)], keeps=True) is None
