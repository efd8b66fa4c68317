"""Widths of fixed_sg, lsg and mpd_agl from their formulas."""

from __future__ import annotations

import math

import pytest
import torch

from gradspike.methods.base import LayerFacts, build_method
from helpers.method_checks import C, T, make_input, make_layer, method_config

TAU, GAMMA, V_TH = 0.35, 1.4, 0.6
GROWTH = math.sqrt(1 + TAU**2)


def widths(name: str, gamma: float | None = GAMMA, **options: object) -> list[float]:
    method = build_method(method_config(name, v_threshold=V_TH, **options), T, C)
    facts = LayerFacts(T, V_TH, torch.tensor(TAU), None if gamma is None else torch.tensor(gamma))
    plan = method.planned(facts)
    assert plan.thresholds.tolist() == pytest.approx([V_TH] * T)
    return plan.widths.tolist()


def test_formulas() -> None:
    later = 2 * GROWTH * GAMMA * V_TH
    assert widths("fixed_sg") == [1.0] * T
    assert widths("fixed_sg", width=2.5) == [2.5] * T
    assert widths("lsg") == pytest.approx([2 * V_TH * GROWTH] * T)
    assert widths("mpd_agl") == pytest.approx([2 * GAMMA * V_TH, *[later] * (T - 1)])
    assert widths("mpd_agl", time_aware=False) == pytest.approx([later] * T)
    assert widths("mpd_agl", gamma_mean=False) == pytest.approx([2 * V_TH, *[2 * V_TH * GROWTH] * (T - 1)])
    assert widths("mpd_agl", gamma=None) == widths("mpd_agl", gamma_mean=False)
    assert widths("mpd_agl", gamma_mean=False, time_aware=False) == pytest.approx(widths("lsg"))


@pytest.mark.parametrize("norm", ["tdbn", "tdbn_gain"])
def test_gamma_mean_is_relative_to_where_the_gain_starts(norm: str) -> None:
    layer = make_layer(method_config("mpd_agl"), name=norm, alpha=3.0)
    with torch.no_grad():
        layer.norm.weight.fill_(layer.norm.initial_gain).mul_(torch.tensor([0.5, 1.0, 3.0]))
    facts = layer.facts(make_input(), gradients=True)
    assert facts.gamma_mean == pytest.approx(1.5)
    assert layer.inspect(make_input()).widths[0] == pytest.approx(1.5)


@pytest.mark.parametrize("name", ["lsg", "mpd_agl"])
def test_width_follows_the_decay_without_a_gradient_through_it(name: str) -> None:
    layer = make_layer(method_config(name))
    before = layer.inspect(make_input()).widths
    assert not layer.method.planned(layer.facts(make_input(), gradients=True)).widths.requires_grad
    with torch.no_grad():
        layer.neuron.get_parameter("decay_logit").add_(2)
    assert (layer.inspect(make_input()).widths[1:] > before[1:]).all()
