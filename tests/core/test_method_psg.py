"""PSG and PDA. There are no reference numbers, so the tests check the formulas."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.integrate import quad
from torch import Tensor

from gradspike.collected import collect_losses
from gradspike.engine.base import EngineOptions
from gradspike.engine.eager import run
from gradspike.methods.base import LayerFacts, build_method
from gradspike.methods.psg import VARIANCE_FLOOR, Psg, symmetric_divergence
from gradspike.models.parameters import lr_multipliers, undecayed_parameters
from gradspike.surrogate import SURROGATES
from helpers.engines import GivenDecay
from helpers.method_checks import C, T, descend, make_input, make_layer, method_config


@pytest.mark.parametrize("per", ["layer", "channel"])
@pytest.mark.parametrize("surrogate", ["rectangular", "triangular", "sigmoid", "arctan"])
def test_width_gradient_is_that_of_the_smoothed_network(surrogate: str, per: str) -> None:
    """float64 gradcheck through softplus, all time steps and the resets."""
    method = build_method(method_config("psg", surrogate=surrogate, width_per=per, width=0.8), T, C).double()
    assert isinstance(method, Psg)
    x = 1.2 * torch.randn(T, 4, C, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    decay = torch.tensor(0.4, dtype=torch.float64)
    facts = LayerFacts(T, 0.5, decay)
    options = EngineOptions(SURROGATES[surrogate], smooth=True)

    def loss(raw: Tensor) -> Tensor:
        del method.width_raw
        method.width_raw = raw  # type: ignore[assignment]
        return run(x, GivenDecay(decay, T), method, facts, options).spikes.square().sum()

    raw = method.width_raw.detach().clone().requires_grad_()
    assert raw.shape == (() if per == "layer" else (C,))
    assert torch.autograd.gradcheck(loss, [raw])


def test_width_gradient_by_hand() -> None:
    """One step: dL/dkappa = sum of g * (-v / kappa^2) inside the window."""
    method = build_method(method_config("psg", width=0.6), 1, 1)
    assert isinstance(method, Psg)
    x = torch.tensor([0.3, 0.45, 0.7, 0.9]).view(1, 4, 1)
    g = torch.tensor([1.0, -2.0, 3.0, 4.0]).view(1, 4, 1)
    decay, options = torch.tensor(0.2), EngineOptions(SURROGATES["rectangular"])
    out = run(x, GivenDecay(decay, 1), method, LayerFacts(1, 0.5, decay), options)
    out.spikes.backward(g)
    by_width = -(1.0 * -0.2 + -2.0 * -0.05 + 3.0 * 0.2) / 0.6**2
    by_raw = by_width * torch.sigmoid(method.width_raw).item()
    assert method.width_raw.grad == pytest.approx(by_raw, rel=1e-5)


@pytest.mark.parametrize("width", [0.002, 0.5, 1.0, 4.0])
def test_width_starts_where_asked(width: float) -> None:
    method = build_method(method_config("psg", width=width, width_per="channel"), T, C)
    assert isinstance(method, Psg)
    assert method.width.tolist() == pytest.approx([width] * C, rel=1e-4)


@pytest.mark.parametrize(
    ("mean", "std", "target"), [(0.0, 0.5, 0.5), (0.3, 0.2, 0.5), (-0.4, 1.3, 0.5), (0.1, 0.6, 1.0)]
)
def test_divergence_equals_numerical_integration(mean: float, std: float, target: float) -> None:
    def log_normal(x: float, m: float, s: float) -> float:
        return -0.5 * ((x - m) / s) ** 2 - math.log(s * math.sqrt(2 * math.pi))

    def kl(m1: float, s1: float, m2: float, s2: float) -> float:
        def integrand(x: float) -> float:
            return math.exp(log_normal(x, m1, s1)) * (log_normal(x, m1, s1) - log_normal(x, m2, s2))

        return quad(integrand, m1 - 12 * s1, m1 + 12 * s1)[0]

    expected = (kl(mean, std, 0, target) + kl(0, target, mean, std)) / 2
    actual = symmetric_divergence(*torch.tensor([mean, std**2], dtype=torch.float64), target_std=target)
    assert actual.item() == pytest.approx(expected, abs=1e-8)


def test_divergence_vanishes_only_at_the_target_and_is_bounded_at_zero_spread() -> None:
    zero, target = torch.tensor(0.0), torch.tensor(0.25)
    assert symmetric_divergence(zero, target, 0.5) == 0
    assert symmetric_divergence(zero, 2 * target, 0.5) > 0
    assert symmetric_divergence(zero, zero, 0.5) == pytest.approx(1 / (4 * VARIANCE_FLOOR), rel=1e-3)


def test_loss_has_an_exact_gradient_down_to_the_input() -> None:
    """Finite differences through the norm; with T = 1 there is no reset, so the loss is smooth."""
    layer = make_layer(method_config("psg_pda", pda_weight=0.3), time_steps=1).double()
    y = make_input(time_steps=1, dtype=torch.float64).requires_grad_()

    def loss(y: Tensor) -> Tensor:
        with collect_losses() as extra:
            layer(y)
        total = extra.mean()
        assert isinstance(total, Tensor)
        return total

    assert torch.autograd.gradcheck(loss, [y], atol=1e-7)
    u = layer.inspect(y).u.flatten(1)
    expected = 0.3 * symmetric_divergence(u.mean(1), u.var(1, correction=0), 0.5).mean()
    torch.testing.assert_close(loss(y).detach(), expected)


def test_descending_on_the_loss_brings_the_potential_to_its_target() -> None:
    layer = make_layer(method_config("psg_pda", pda_weight=1.0, pda_target=0.9))
    losses = descend(layer, lr=0.2, steps=60)
    assert losses[-1] < 0.1 * losses[0]
    assert layer.inspect(make_input()).u.std() == pytest.approx(0.9, abs=0.1)


def test_width_is_listed_for_the_optimiser() -> None:
    model = torch.nn.Sequential(make_layer(method_config("psg", width_lr_multiplier=3.0)), torch.nn.Linear(2, 2))
    assert lr_multipliers(model) == {"0.method.width_raw": 3.0}
    names = {"norm.weight", "norm.bias", "neuron.decay_logit", "method.width_raw"}
    assert undecayed_parameters(model) == {f"0.{name}" for name in names}
