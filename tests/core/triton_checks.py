"""The Triton engine against the reference, on a CPU: `test_engine_triton.py` runs this file with TRITON_INTERPRET=1.

Tensors are tiny, because each operation of each program is a call into NumPy.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from gradspike.collected import collect_losses
from gradspike.engine import eager, formulas
from gradspike.engine.base import Engine, EngineOptions, EngineOutput
from gradspike.engine.fused import FusedEngine
from gradspike.engine.norm_formulas import inverse_std
from gradspike.engine.records import Affine, Arriving, Inputs, Spec, Wanted
from gradspike.engine.triton import engine as triton_engine
from gradspike.engine.triton import tiling
from gradspike.engine.triton.engine import TritonKernels
from gradspike.methods.base import LayerFacts, Method, Plan
from gradspike.methods.options import MethodConfig
from gradspike.methods.registry import METHODS
from gradspike.spiking_norm import SpikingNorm
from gradspike.surrogate import SURROGATES, Surrogate
from helpers.engines import GivenDecay
from helpers.method_checks import make_layer, method_config

EXTRA: dict[str, dict[str, Any]] = {"psg": {"width_per": "channel"}}
# The others need compiled kernels: noise, spikes of another height, a surrogate of their own, a loss on the current.
WITHOUT_KERNELS = {"asgl", "trsg", "dspike", "im_loss", "diet_snn"}
WITH_KERNELS = sorted(set(METHODS.names()) - WITHOUT_KERNELS)
SHAPES = {"rows": (3, 5, 2, 3), "planes": (2, 3, 2, 3), "vectors": (3, 5)}


def layer_input(layout: str, time_steps: int, dtype: torch.dtype = torch.float64) -> Tensor:
    y = torch.randn(time_steps * SHAPES[layout][0], *SHAPES[layout][1:], generator=torch.Generator().manual_seed(1)).to(
        dtype
    )
    y = 1.5 * y + 0.3
    return y.contiguous(memory_format=torch.channels_last) if layout == "rows" else y


def results(layer: SpikingNorm, y: Tensor, static: bool) -> dict[str, Tensor]:
    """Spikes, gradients and state after one step with the method's own loss."""
    y = y.detach().clone().requires_grad_()
    with collect_losses() as extra:
        spikes = layer(y, static=static)
    weights = torch.randn(spikes.shape, generator=torch.Generator().manual_seed(2)).to(spikes.dtype)
    ((spikes * weights).sum() + extra.mean()).backward()
    assert y.grad is not None
    grads = {name: p.grad for name, p in layer.named_parameters() if p.grad is not None}
    return {"spikes": spikes.detach(), "y": y.grad, **grads, **{f"state {k}": v for k, v in layer.state_dict().items()}}


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("layout", SHAPES)
@pytest.mark.parametrize("name", WITH_KERNELS)
def test_every_method_as_the_reference(name: str, layout: str, training: bool, static: bool) -> None:
    config = method_config(name, **EXTRA.get(name, {}))
    layer = make_layer(config, time_steps=2, channels=SHAPES[layout][1]).double().train(training)
    twin = copy.deepcopy(layer)
    twin._run = triton_engine.run
    y = layer_input(layout, 1 if static else 2)
    expected, actual = results(layer, y, static), results(twin, y, static)
    assert actual.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(
            actual[key], value, rtol=1e-9, atol=1e-11, msg=lambda text, key=key: f"{key}: {text}"
        )
        assert actual[key].stride() == value.stride(), key


class Given(Method):
    """Returns the given thresholds and widths."""

    def __init__(self, thresholds: Tensor, widths: Tensor, channels: int) -> None:
        super().__init__(MethodConfig(name="given"), len(thresholds), channels)
        self.given = Plan(thresholds, widths)

    def plan(self, facts: LayerFacts) -> Plan:
        return self.given


def drive(
    engine: Engine, x: Tensor, decay: Tensor, thresholds: Tensor, widths: Tensor, surrogate: Surrogate, **options: Any
) -> EngineOutput:
    facts = LayerFacts(len(thresholds), 1.0, decay.detach())
    neuron = GivenDecay(decay, len(thresholds), detach_reset=options.pop("detach_reset", False))
    return engine(x, neuron, Given(thresholds, widths, x.shape[2]), facts, EngineOptions(surrogate, **options))


def leaves(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    x, *rest = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    values = [1.5 * x, *(0.7 + 0.2 * value.tanh() for value in rest)]
    return [value.to(dtype).requires_grad_() for value in values]


@pytest.mark.parametrize("per_channel", [False, True])
def test_backward_is_the_gradient_of_the_smoothed_network(per_channel: bool) -> None:
    """float64 gradcheck of x, decay, thresholds and widths, through spikes and through mean and variance of u."""
    steps = (2, 2) if per_channel else (2,)

    def network(*tensors: Tensor) -> tuple[Tensor | None, ...]:
        out = drive(triton_engine.run, *tensors, SURROGATES["sigmoid"], smooth=True, moments=True)
        return out.spikes, out.mean, out.variance

    assert torch.autograd.gradcheck(
        network, leaves((2, 1, 2), (), steps, steps), eps=1e-6, atol=1e-6, rtol=1e-5, fast_mode=True
    )


def everything(engine: Engine, tensors: list[Tensor], surrogate: Surrogate, **options: Any) -> list[Tensor]:
    """Spikes, and all gradients."""
    spikes = drive(engine, *tensors, surrogate, **options).spikes
    weights = torch.randn(spikes.shape, generator=torch.Generator().manual_seed(1)).to(spikes.dtype)
    return [spikes.detach(), *torch.autograd.grad((spikes * weights).sum(), tensors)]


@pytest.mark.parametrize(("smooth", "dtype"), [(False, torch.float32), (True, torch.float64)])
@pytest.mark.parametrize("name", sorted(SURROGATES))
def test_every_shape(name: str, dtype: torch.dtype, smooth: bool) -> None:
    tensors = leaves((2, 40, 3), (), (2,), (2, 3), dtype=dtype)
    with torch.no_grad():
        tensors[0].flatten()[:6] = torch.tensor([0.0, -1e4, 1e4, 100.0, -8.0, 8.0], dtype=dtype)  # far tails, too
    expected, actual = (
        everything(engine, tensors, SURROGATES[name], smooth=smooth) for engine in (eager.run, triton_engine.run)
    )
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e)


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_short_dtypes(dtype: torch.dtype, detach: bool) -> None:
    """The recursion is float32 for every input, so only its output is rounded."""
    engines = (FusedEngine(formulas), triton_engine.run)
    tensors = leaves((3, 8, 5), (), (3,), (3,), dtype=torch.float32)
    tensors[0] = tensors[0].detach().to(dtype).requires_grad_()
    expected, actual = (everything(run, tensors, SURROGATES["arctan"], detach_reset=detach) for run in engines)
    assert torch.equal(actual[0], expected[0])
    for a, e in zip(actual, expected, strict=True):
        assert a.dtype == e.dtype
        torch.testing.assert_close(a, e)


@pytest.mark.parametrize("norm", ["batch", "given", "none"])
@pytest.mark.parametrize(
    ("arrangement", "shape", "wide"),
    [
        ("rows", (2, 1, 1), False),
        ("rows", (3, 1, 11), True),
        ("planes", (1, 1, 5), False),
        ("planes", (2, 3, 7), True),
        ("planes", (5, 2, 1), False),
    ],
)
def test_odd_sizes_in_many_small_tiles(
    arrangement: str, shape: tuple[int, ...], norm: str, wide: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compared with the formulas: several tiles per program, partial tiles, sizes of 1, 64-bit offsets."""
    if wide:
        monkeypatch.setattr(tiling, "WIDE_FROM", 0)
    monkeypatch.setattr(tiling, "SMALLEST", 4)
    kernels = TritonKernels(tile=8, programs=3)
    time_steps, static = (3, False) if shape[0] != 2 else (2, True)
    generator = torch.Generator().manual_seed(3)

    def random(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64)

    y = 2 * random(1 if static else time_steps, *shape) + 1
    channels = shape[2] if arrangement == "rows" else shape[1]
    spec = Spec(time_steps, arrangement, norm, 1e-5, SURROGATES["arctan"])  # type: ignore[arg-type]
    affine = Affine() if norm == "none" else Affine(random(channels), random(channels))
    if norm == "given":
        affine = affine._replace(mean=random(channels), inverse=random(channels).abs())
    decay, thresholds, widths = random(1)[0].sigmoid(), random(time_steps, channels), random(time_steps).exp()
    shifts = random(time_steps, channels)
    inputs = Inputs(y, affine, thresholds, widths, (decay,))
    fired, expected = (k.forward(inputs, shifts, spec) for k in (kernels, formulas))  # type: ignore[attr-defined]
    assert_same(fired, expected)
    if norm == "batch":
        inverse = inverse_std(expected.batch_variance, spec)
        inputs = inputs._replace(affine=affine._replace(mean=expected.batch_mean, inverse=inverse))
    moments = random(time_steps), random(time_steps)
    arriving = Arriving(random(*expected.spikes.shape), *moments, expected.u_mean)
    wanted = Wanted(norm != "none", True, True, (norm != "none",))
    given = (inputs, arriving, spec, wanted)
    assert_same(kernels.backward(*given), formulas.backward(*given))
    given = (inputs, Arriving(arriving.spikes), spec, Wanted(False, False, False, (False,)))
    torch.testing.assert_close(kernels.backward(*given).y, formulas.backward(*given).y)


def assert_same(actual: tuple[Tensor | None, ...], expected: tuple[Tensor | None, ...]) -> None:
    for a, e in zip(actual, expected, strict=True):
        assert (a is None) == (e is None)
        if e is not None:
            torch.testing.assert_close(a, e)


def test_statistics_are_safe() -> None:
    """Equal values have variance 0, a large mean does not hide a small variance, and repeats are equal bit for bit."""
    spec = Spec(1, "rows", "batch", 1e-5, SURROGATES["arctan"])
    kernels = TritonKernels(tile=128, programs=3)
    equal = torch.full((1, 7, 61, 3), 1e4 / 3)
    mean, variance = kernels.batch_statistics(equal, torch.float32, spec)
    assert torch.equal(mean, equal[0, 0, 0])
    assert not variance.any()
    plain = replace(spec, norm="none")
    _, _, squares, _ = kernels.advance(equal, None, Affine(), (torch.tensor(0.5),), plain)
    assert squares == 0
    y = torch.randn(1, 7, 61, 3, generator=torch.Generator().manual_seed(0)) + 1e4
    mean, variance = kernels.batch_statistics(y, torch.float32, spec)
    torch.testing.assert_close(mean.double(), y.double().mean((0, 1, 2)), rtol=1e-7, atol=0)
    torch.testing.assert_close(variance.double(), y.double().var((0, 1, 2), correction=0), rtol=1e-4, atol=0)
    again = kernels.batch_statistics(y, torch.float32, spec)
    assert torch.equal(mean, again[0])
    assert torch.equal(variance, again[1])


def test_what_has_no_kernel_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shape of one's own, even with a known name. The formulas replace compiled kernels here."""
    asked = []

    def compiled() -> Any:
        asked.append(True)
        return formulas

    monkeypatch.setattr(triton_engine, "_compiled", compiled)
    own = replace(SURROGATES["sigmoid"], derivative=SURROGATES["gaussian"].derivative)
    tensors = leaves((2, 3, 2), (), (2,), (2,))
    expected, actual = (everything(engine, tensors, own) for engine in (FusedEngine(formulas), triton_engine.run))
    assert_same(tuple(actual), tuple(expected))
    assert len(asked) == 2
