"""Directions and known surfaces: the loss surface against analysis."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from gradspike.tools.landscape.numbers import Point
from gradspike.tools.landscape.plot import draw
from gradspike.tools.landscape.surface import (
    Surface,
    filter_normalised,
)
from gradspike.training.checkpoint import state_hash
from helpers.landscapes import assert_picture, numbers_of


def test_every_filter_has_the_norm_of_the_trained_one() -> None:
    torch.manual_seed(0)
    weight = torch.randn(5, 3, 2, 2) * torch.tensor([1e-6, 1.0, 50.0, 0.0, 3.0]).view(-1, 1, 1, 1)
    noise = torch.randn(5, 3, 2, 2)
    result = filter_normalised(noise, weight)
    torch.testing.assert_close(result.flatten(1).norm(dim=1), weight.flatten(1).norm(dim=1), rtol=1e-6, atol=0.0)
    for row in (0, 1, 2, 4):  # only the length changes
        ratio = result[row] / noise[row]
        torch.testing.assert_close(ratio, ratio.flatten()[0].expand_as(ratio), rtol=1e-6, atol=0.0)


def quadratic_surface() -> tuple[Surface, torch.Tensor]:
    torch.manual_seed(0)
    model = nn.Linear(6, 4).double()
    target = torch.randn(4, 6, dtype=torch.float64)
    identity = torch.eye(6, dtype=torch.float64)

    def measure(forward: Callable[[torch.Tensor], torch.Tensor]) -> Point:
        return Point(float((forward(identity).T - model.bias[:, None] - target).square().sum()), 0.5)

    return Surface(model, seed=3, measure=measure), target


def test_quadratic_loss_gives_the_analytic_surface() -> None:
    surface, target = quadratic_surface()
    first, second = surface.first["weight"], surface.second["weight"]
    offset = surface.model.get_parameter("weight").detach() - target
    before = state_hash(surface.model.state_dict())
    for alpha in (-1.0, 0.0, 0.3):
        for beta in (-0.5, 0.0, 2.0):
            expected = (
                offset.square().sum()
                + 2 * (offset * (alpha * first + beta * second)).sum()
                + alpha**2 * first.square().sum()
                + beta**2 * second.square().sum()
                + 2 * alpha * beta * (first * second).sum()
            )
            assert surface.at(alpha, beta).loss == pytest.approx(float(expected), rel=1e-12)
    assert state_hash(surface.model.state_dict()) == before


def test_flatness_does_not_depend_on_the_grid() -> None:
    """A stretched bowl: its loss on the circle of radius 1/2 has the median 1 + (1 + 9) / 2 / 4."""
    for points in (21, 23, 51):
        stretched = numbers_of(lambda alpha, beta: 1 + alpha**2 + 9 * beta**2, points)
        assert stretched.flatness()["median_increase_at_half"] == pytest.approx(1.25, abs=0.03)
    plane = numbers_of(lambda alpha, beta: 3 + alpha if beta > -0.7 else None, 11)
    assert plane.flatness()["median_increase_at_half"] == pytest.approx(0.0, abs=1e-12)  # exact where it is linear


def test_flatness_of_a_bowl() -> None:
    bowl = numbers_of(lambda alpha, beta: 1 + 4 * (alpha**2 + beta**2), points=101)
    flatness = bowl.flatness()
    assert flatness["share_below_twice_centre"] == pytest.approx(math.pi * 0.5**2 / 4, abs=0.01)
    assert flatness["median_increase_at_half"] == pytest.approx(1.0, abs=0.02)
    assert bowl.axis[50] == 0.0
    assert bowl.centre == Point(1.0, 0.5)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("loss", "increase"),
    [
        (lambda alpha, beta: None if alpha > 0.6 else 1 + alpha**2, False),
        (lambda alpha, beta: 1.0 if alpha == beta == 0 else None, True),
        (lambda alpha, beta: None, True),
        (lambda alpha, beta: 10 ** (20 * (alpha**2 + beta**2)), False),
        (lambda alpha, beta: 0.0, False),
    ],
    ids=["part", "centre only", "nothing", "decades", "flat"],
)
def test_losses_that_are_not_finite(
    loss: Callable[[float, float], float | None], increase: bool, tmp_path: Path
) -> None:
    numbers = numbers_of(loss, points=5)
    assert (numbers.flatness()["median_increase_at_half"] is None) == increase
    picture = draw(tmp_path / "landscape.png", numbers)
    assert_picture(picture)
    with Image.open(picture) as image:
        grey = (np.asarray(image.convert("RGB")) == 204).all(axis=2).mean()
    assert (grey > 0.02) == (numbers.not_finite > 0)
