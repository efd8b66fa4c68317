"""Shapes of the surrogate: one meaning of kappa, matching derivative and primitive, no overflow."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from scipy.integrate import quad
from torch import Tensor

from gradspike.surrogate import DSPIKE_TEMPERATURE, SURROGATES, Surrogate

SHAPES = [pytest.param(shape, id=name) for name, shape in SURROGATES.items()]
WIDTHS = [0.3, 1.0, 2.5]


def double(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


@pytest.mark.parametrize("kappa", WIDTHS)
@pytest.mark.parametrize("shape", SHAPES)
def test_area_is_one_and_height_is_one_over_kappa(shape: Surrogate, kappa: float) -> None:
    def h(v: float) -> float:
        return shape.derivative(double(v), double(kappa)).item()

    kinks = [-2 * kappa, -kappa, -0.5 * kappa, 0, 0.5 * kappa, kappa, 2 * kappa]
    half = DSPIKE_TEMPERATURE * kappa / (4 * math.tanh(DSPIKE_TEMPERATURE / 2))
    edges = sorted([*kinks, -half, half])
    area = sum(quad(h, a, b)[0] for a, b in itertools.pairwise(edges))
    area += quad(h, edges[-1], math.inf)[0] + quad(h, -math.inf, edges[0])[0]
    assert area == pytest.approx(1, abs=1e-6)
    assert h(0) == pytest.approx(1 / kappa)
    v = torch.linspace(-4, 4, 801, dtype=torch.float64)
    if shape.name != "asymmetric":
        assert shape.derivative(v, double(kappa)).max() == pytest.approx(1 / kappa)


@pytest.mark.parametrize("kappa", WIDTHS)
@pytest.mark.parametrize("shape", SHAPES)
def test_primitive_and_its_two_derivatives(shape: Surrogate, kappa: float) -> None:
    """Central finite differences over v and kappa, except within a step of a jump of h."""
    eps = 1e-6
    v, width = torch.linspace(-3, 3, 997, dtype=torch.float64), double(kappa)
    h = shape.derivative(v, width)
    by_v = (shape.primitive(v + eps, width) - shape.primitive(v - eps, width)) / (2 * eps)
    by_width = (shape.primitive(v, width + eps) - shape.primitive(v, width - eps)) / (2 * eps)
    jump = 4 * eps
    steady = (shape.derivative(v - jump, width) - shape.derivative(v + jump, width)).abs() < 1e-3 / kappa
    assert steady.sum() > 990
    torch.testing.assert_close(by_v[steady], h[steady], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(by_width[steady], shape.width_derivative(v, width)[steady], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_primitive_differentiated_at_the_threshold_is_the_derivative(shape: Surrogate) -> None:
    """As derived backward passes do; abs and clamp have a gradient of 0 there."""
    v, kappa = double(0.0).requires_grad_(), double(0.7)
    (slope,) = torch.autograd.grad(shape.primitive(v, kappa), v)
    torch.testing.assert_close(slope, shape.derivative(v.detach(), kappa))


@pytest.mark.parametrize("shape", SHAPES)
def test_primitive_rises_from_zero_to_one(shape: Surrogate) -> None:
    v = torch.linspace(-50, 50, 2001, dtype=torch.float64)
    phi = shape.primitive(v, double(1.0))
    assert (phi.diff() >= 0).all()
    assert phi[0] == pytest.approx(0, abs=0.01)
    assert phi[-1] == pytest.approx(1, abs=0.01)
    if shape.name != "asymmetric":  # all others go through a half at 0
        assert shape.primitive(double(0.0), double(0.7)) == pytest.approx(0.5)
        torch.testing.assert_close(phi + phi.flip(0), torch.ones_like(phi))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_finite_far_out_and_broadcasting(shape: Surrogate, dtype: torch.dtype) -> None:
    v = torch.tensor([-1e4, -1.0, -1e-8, 0.0, 1e-8, 1.0, 1e4], dtype=dtype)
    kappa = torch.tensor([[1e-3], [1.0], [1e3]], dtype=dtype)
    for value in (shape.derivative(v, kappa), shape.primitive(v, kappa), shape.width_derivative(v, kappa)):
        assert value.shape == (3, 7)
        assert value.dtype == dtype
        assert value.isfinite().all()
    assert (shape.derivative(v, kappa) >= 0).all()


def test_rectangular_window_is_open() -> None:
    """h = 1 / kappa only where |v| < kappa / 2, strictly."""
    v = torch.tensor([-0.5, -0.4999, 0.4999, 0.5])
    assert SURROGATES["rectangular"].derivative(v, torch.tensor(1.0)).tolist() == [0, 1, 1, 0]
    width = SURROGATES["rectangular"].width_derivative(torch.tensor([0.25, 3.0]), torch.tensor(2.0))
    assert width.tolist() == [-0.25 / 4, 0]


def test_dspike_is_the_papers_function_on_its_support() -> None:
    """Li et al.: tanh(b (y - 1/2)) / (2 tanh(b/2)) + 1/2 for y in [0, 1], stretched from 1 to the support."""
    b, kappa = DSPIKE_TEMPERATURE, 0.8
    support = kappa * b / (2 * math.tanh(b / 2))
    y = torch.linspace(0, 1, 101, dtype=torch.float64)
    expected = torch.tanh(b * (y - 0.5)) / (2 * math.tanh(b / 2)) + 0.5
    actual = SURROGATES["dspike"].primitive((y - 0.5) * support, double(kappa))
    torch.testing.assert_close(actual, expected)


def test_asymmetric_is_the_papers_line_over_its_half_window() -> None:
    """Kang et al.: v / (2 beta) + h on the window |v| <= beta, here with h = 1/2."""
    beta = 0.4
    v = torch.tensor([-0.5, -0.4, -0.3, 0.0, 0.3, 0.3999, 0.4, 0.5], dtype=torch.float64)
    expected = torch.where(v.abs() < beta, v / (2 * beta) + 0.5, 0.0) / beta
    torch.testing.assert_close(SURROGATES["asymmetric"].derivative(v, double(2 * beta)), expected)
