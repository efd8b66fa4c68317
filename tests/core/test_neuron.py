"""The recursion: hand-written backward against finite differences and autograd, decay modules, dtypes, layout."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from torch import Tensor, nn

from gradspike.engine import eager
from gradspike.engine.base import (
    Engine,
    EngineOptions,
    EngineOutput,
    empty_steps,
    membrane_statistics,
    pooled_statistics,
)
from gradspike.engine.registry import load_engine
from gradspike.errors import ConfigError
from gradspike.methods.base import LayerFacts, Method, Plan
from gradspike.methods.options import MethodConfig
from gradspike.neurons.base import build_neuron
from gradspike.surrogate import SURROGATES
from helpers.engines import GivenDecay, compiled_slowly, every_engine
from helpers.part_options import neuron_config

T, B, C = 4, 3, 2


class Given(Method):
    """Returns the given thresholds and widths."""

    def __init__(self, thresholds: Tensor, widths: Tensor, channels: int = C) -> None:
        super().__init__(MethodConfig(name="given"), len(thresholds), channels)
        self.given = Plan(thresholds, widths)

    def plan(self, facts: LayerFacts) -> Plan:
        return self.given


def drive(
    x: Tensor, decay: Tensor, thresholds: Tensor, widths: Tensor, run: Engine = eager.run, **options: object
) -> EngineOutput:
    shape = SURROGATES[str(options.pop("surrogate", "rectangular"))]
    facts = LayerFacts(x.shape[0], 1.0, decay.detach(), gradients=torch.is_grad_enabled())
    channels = x.shape[2]
    neuron = GivenDecay(decay, x.shape[0], detach_reset=options.pop("detach_reset", False))
    return run(x, neuron, Given(thresholds, widths, channels), facts, EngineOptions(shape, **options))  # type: ignore[arg-type]


def leaves(*shapes: tuple[int, ...], seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x, *rest = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    return [(1.5 * x).requires_grad_(), *((0.7 + 0.2 * value.tanh()).requires_grad_() for value in rest)]


@compiled_slowly
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("surrogate", sorted(SURROGATES))
def test_backward_is_the_gradient_of_the_smoothed_network(engine: Engine, surrogate: str, per_channel: bool) -> None:
    """float64 gradcheck of x, decay, thresholds and widths, through spikes and through mean and variance of u."""
    steps = (T, C) if per_channel else (T,)
    inputs = leaves((T, B, C, 2), (), steps, steps)

    def network(x: Tensor, decay: Tensor, thresholds: Tensor, widths: Tensor) -> tuple[Tensor | None, ...]:
        out = drive(x, decay, thresholds, widths, engine, surrogate=surrogate, smooth=True, moments=True)
        return out.spikes, out.mean, out.variance

    assert torch.autograd.gradcheck(network, inputs, eps=1e-6, atol=1e-6, rtol=1e-5)


def stepwise(x: Tensor, decay: Tensor, thresholds: Tensor, widths: Tensor, surrogate: str, detach: bool) -> Tensor:
    """The smoothed network, step by step in plain operations, with the gradient of autograd."""
    u, s, spikes = torch.zeros_like(x[0]), torch.zeros_like(x[0]), []
    for current, theta, kappa in zip(x, thresholds, widths, strict=True):
        u = decay * u * (1 - (s.detach() if detach else s)) + current
        s = SURROGATES[surrogate].primitive(u - theta, kappa)
        spikes.append(s)
    return torch.stack(spikes)


@compiled_slowly
@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("surrogate", ["rectangular", "arctan", "gaussian"])
def test_backward_equals_stepwise_autograd(engine: Engine, surrogate: str, detach: bool) -> None:
    inputs = leaves((T, B, C, 3, 3), (), (T,), (T,), seed=3)
    ours = drive(*inputs, engine, surrogate=surrogate, smooth=True, detach_reset=detach).spikes
    plain = stepwise(*inputs, surrogate=surrogate, detach=detach)
    torch.testing.assert_close(ours, plain)
    weights = torch.randn(plain.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = torch.autograd.grad((plain * weights).sum(), inputs)
    actual = torch.autograd.grad((ours * weights).sum(), inputs)
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e)


@compiled_slowly
def test_detach_reset_changes_the_gradient_and_not_the_spikes(engine: Engine) -> None:
    inputs = leaves((T, B, C, 3, 3), (), (T,), (T,))
    kept, cut = (drive(*inputs, engine, detach_reset=detach).spikes for detach in (False, True))
    assert torch.equal(kept, cut)
    assert not torch.equal(*(torch.autograd.grad(s.square().sum(), inputs[0])[0] for s in (kept, cut)))


@compiled_slowly
def test_recursion_by_hand(engine: Engine) -> None:
    """One neuron, five steps: leak, fire at equality, hard reset to 0."""
    x = torch.tensor([0.6, 0.9, 0.5, 0.75, -1.0]).view(5, 1, 1)
    out = drive(x, torch.tensor(0.5), torch.ones(5), torch.ones(5), keep_membrane=True)
    assert out.membrane is not None
    torch.testing.assert_close(out.membrane.flatten(), torch.tensor([0.6, 1.2, 0.5, 1.0, -1.0]))
    assert out.spikes.flatten().tolist() == [0, 1, 0, 1, 0]
    assert torch.equal(drive(x, torch.tensor(0.5), torch.ones(5), torch.ones(5), engine).spikes, out.spikes)


@compiled_slowly
def test_moments_are_those_of_the_membrane(engine: Engine) -> None:
    x, decay, thresholds, widths = leaves((T, B, C, 3), (), (T,), (T,))
    seen = drive(x, decay, thresholds, widths, keep_membrane=True)
    assert seen.membrane is not None
    out = drive(x, decay, thresholds, widths, engine, moments=True)
    assert out.mean is not None
    assert out.variance is not None
    torch.testing.assert_close(out.mean.detach(), seen.membrane.flatten(1).mean(1))
    torch.testing.assert_close(out.variance.detach(), seen.membrane.flatten(1).var(1, correction=0))
    (grad,) = torch.autograd.grad(out.mean.sum(), x)
    assert grad.abs().sum() > 0


def test_statistics_are_safe() -> None:
    mean, std = membrane_statistics(torch.tensor([3.0]))
    assert (mean, std) == (3, 0)
    u = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    mean, std = membrane_statistics(u + 1e4)
    assert mean == pytest.approx(1e4 + u.mean().item(), rel=1e-6)
    assert std == pytest.approx((u + 1e4).double().std().item(), rel=1e-4)
    assert membrane_statistics(torch.full((7,), 0.1))[1] <= 1e-7


def test_pooled_statistics_are_those_of_the_union() -> None:
    parts = [torch.randn(n, generator=torch.Generator().manual_seed(n)) * n + n for n in (3, 10, 40)]
    rows = torch.stack(
        [torch.stack([torch.tensor(float(p.numel())), p.mean(), p.var(correction=0) * p.numel()]) for p in parts]
    )
    mean, std = pooled_statistics(rows)
    union = torch.cat(parts)
    torch.testing.assert_close(mean, union.mean())
    torch.testing.assert_close(std, union.std())


@compiled_slowly
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_dtype_of_input_is_kept_and_the_recursion_is_float32_at_least(engine: Engine, dtype: torch.dtype) -> None:
    x, decay, thresholds, widths = (leaf.detach() for leaf in leaves((8, B, C, 3), (), (8,), (8,)))
    x, decay = x.to(dtype).requires_grad_(), torch.tensor(0.9, dtype=torch.float64)
    out = drive(x, decay, thresholds, widths, keep_membrane=True)
    exact = drive(x.double(), decay, thresholds, widths, keep_membrane=True)
    assert out.spikes.dtype == dtype
    assert out.membrane is not None
    assert exact.membrane is not None
    assert out.membrane.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(out.membrane.double(), exact.membrane, rtol=1e-5, atol=1e-5)
    same = drive(x, decay, thresholds, widths, engine).spikes
    assert same.dtype == dtype
    assert torch.equal(same, out.spikes)
    same.sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == dtype


@every_engine
def test_layout_of_a_step_is_kept(engine: Engine) -> None:
    y = torch.randn(T * B, C, 4, 5).contiguous(memory_format=torch.channels_last)
    x = y.unflatten(0, (T, B)).requires_grad_()
    out = drive(x, torch.tensor(0.2), torch.ones(T), torch.ones(T), engine)
    assert out.spikes.stride() == x.stride()
    out.spikes.sum().backward()
    assert x.grad is not None
    assert x.grad.stride() == x.stride()
    still = y[:B].unsqueeze(0).expand(T, B, C, 4, 5)
    assert empty_steps(still).flatten(0, 1).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("decay", "name"), itertools.product([0.05, 0.2, 0.9], ["lif", "plif"]))
def test_decay_starts_where_asked(decay: float, name: str) -> None:
    neuron = build_neuron(neuron_config(name, decay=decay), T, C, 1.0)
    assert neuron.decay.item() == pytest.approx(decay, rel=1e-6)
    assert sum(p.numel() for p in neuron.parameters()) == (name == "plif")


def test_plif_logit_of_the_paper() -> None:
    """w = -log(a - 1) with a = 5."""
    logit = build_neuron(neuron_config("plif", decay=0.2), T, C, 1.0).get_parameter("decay_logit")
    torch.testing.assert_close(logit.detach(), -torch.tensor(4.0).log())


def test_lif_keeps_its_decay_exactly_and_out_of_checkpoints() -> None:
    neuron = build_neuron(neuron_config("lif", decay=0.2), T, C, 1.0)
    assert not neuron.state_dict()
    assert neuron.double().decay == torch.tensor(0.2, dtype=torch.float64)
    assert copy.deepcopy(neuron).bfloat16().float().decay == torch.tensor(0.2)
    other = nn.Sequential(build_neuron(neuron_config("lif", decay=0.3), T, C, 1.0))
    assert other.to_empty(device="cpu").get_buffer("0.tau") == torch.tensor(0.3)


def test_unknown_engine_gets_the_nearest_name() -> None:
    assert load_engine("eager") is eager.run
    with pytest.raises(ConfigError, match="Did you mean 'eager'"):
        load_engine("eagre")
