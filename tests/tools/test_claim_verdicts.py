"""Verdicts on claims: exact statements against the code of the methods, intervals, parts, paired differences."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from gradspike.errors import ConfigError
from gradspike.methods.base import LayerFacts, build_method
from gradspike.statistics import Sample
from gradspike.tools.claims import exact
from gradspike.tools.claims.claim import Claim, Expected, Part
from gradspike.tools.claims.quantities import QUANTITIES, divergence
from gradspike.tools.claims.summary import Record
from gradspike.tools.claims.verdict import DOES_NOT, HOLDS, NOT_RUN, UNKNOWN, combined, decide, judge
from helpers.claimed import summary_of
from helpers.method_checks import method_config


def normal_potential(std: float, count: int = 200_001) -> torch.Tensor:
    """A normal distribution of zero mean, as its quantiles."""
    places = (np.arange(count) + 0.5) / count
    return torch.from_numpy(std * stats.norm.ppf(places))


def part_of(**changes: Any) -> Part:
    whole = {"what": "x", "summary": "s", "quantity": "accuracy", "of": {"method": "a"}, "expect": {"above": 0}}
    return Part.model_validate(whole | changes)


def claim_of(*parts: Part, **changes: Any) -> Claim:
    return Claim(id="A1", statement="s", source="s", paper="p", parts=parts, **changes)


@pytest.mark.parametrize("std", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("tgo", [False, True])
def test_shares_are_those_of_the_methods_own_thresholds_and_widths(std: float, tgo: bool) -> None:
    u = normal_potential(std)
    method = build_method(method_config("ds_atgo", tgo=tgo, driver="threshold"), time_steps=1, channels=1)
    facts = LayerFacts(time_steps=1, v_threshold=1.0, scalar=torch.tensor(0.2, dtype=torch.float64))
    theta, kappa = method.adapted(0, facts, u.mean(), u.std())
    share = ((u - theta).abs() < kappa / 2).double().mean()
    width = exact.driven_width(std) if tgo else 1.0
    assert 100 * float(share) == pytest.approx(exact.available(std, width), abs=0.02)
    assert 100 * float((u >= theta).double().mean()) == pytest.approx(exact.firing_rate(0, std), abs=0.02)


def test_spread_of_the_second_potential_against_integration() -> None:
    tau = 0.2
    mean, square = (integrate.quad(lambda z, n=n: z**n * stats.norm.pdf(z), -12, 1)[0] for n in (1, 2))
    variance = 1 + tau**2 * (square - mean**2)
    assert exact.second_potential(tau, resets=True) == pytest.approx(math.sqrt(variance / (1 + tau**2)))
    assert exact.second_potential(tau, resets=False) == 1


def test_divergence_against_integration() -> None:
    p, q = stats.norm(0.3, 0.8), stats.norm(0, 0.5)
    both = integrate.quad(lambda u: (p.pdf(u) - q.pdf(u)) * (p.logpdf(u) - q.logpdf(u)), -6, 6)[0]
    assert divergence(0.3, 0.8, 0.5) == pytest.approx(both / 2)


@pytest.mark.parametrize(
    ("low", "high", "expected", "verdict"),
    [
        (0.1, 2.0, {"above": 0}, HOLDS),
        (-0.1, 2.0, {"above": 0}, UNKNOWN),
        (-2.0, -0.1, {"above": 0}, DOES_NOT),
        (-2.0, 0.0, {"above": 0}, DOES_NOT),
        (1.0, 2.0, {"above": 0, "below": 3}, HOLDS),
        (1.0, 4.0, {"above": 0, "below": 3}, UNKNOWN),
        (3.0, 4.0, {"above": 0, "below": 3}, DOES_NOT),
    ],
)
def test_an_interval_decides(low: float, high: float, expected: dict[str, float], verdict: str) -> None:
    sample = Sample(3, (low + high) / 2, 1.0, low, high)
    assert judge(sample, Expected.model_validate(expected)) == verdict


def test_one_seed_decides_nothing_and_an_exact_number_does() -> None:
    assert judge(Sample(1, 5.0, None, None, None), Expected(above=0)) == UNKNOWN
    assert judge(Sample(0, 5.0, None, None, None), Expected(above=0)) == HOLDS


def test_parts_make_one_verdict() -> None:
    assert combined([HOLDS, HOLDS]) == HOLDS
    assert combined([HOLDS, UNKNOWN]) == combined([HOLDS, NOT_RUN]) == UNKNOWN
    assert combined([HOLDS, UNKNOWN, DOES_NOT]) == DOES_NOT
    assert combined([NOT_RUN, NOT_RUN]) == NOT_RUN


def test_differences_are_paired_by_seed() -> None:
    summary = summary_of({"a": [0.5, 0.6, 0.7], "b": [0.4, 0.51, 0.58, 0.9]})
    (one,) = decide(claim_of(part_of(minus={"method": "b"})), {"s": summary}).measured
    assert one.sample is not None
    assert one.sample.n == 3
    assert one.sample.mean == pytest.approx(100 * (0.1 + 0.09 + 0.12) / 3)
    assert one.unit == "points"
    assert decide(claim_of(part_of(minus={"method": "b"})), {"s": summary}).verdict == HOLDS
    assert decide(claim_of(part_of(of={"method": "b"}, minus={"method": "a"})), {"s": summary}).verdict == DOES_NOT


def test_a_number_that_was_not_finite_is_an_error() -> None:
    values: dict[str, Any] = {"firing_rate": ((0.1, None),), "u_mean": ((0.0, 0.1),), "u_std": ((0.0, 1.0),)}
    run = Record(seed=0, parameters={}, values={"v_threshold": 1.0}, last=values)
    with pytest.raises(ConfigError, match="no number at some step"):
        QUANTITIES["firing_rate"].of(run)
    with pytest.raises(ConfigError, match="has no spread"):
        QUANTITIES["divergence"].of(run)


def test_a_difference_may_be_relative() -> None:
    summary = summary_of({"a": [0.6, 0.5], "b": [0.5, 0.4]})
    (one,) = decide(claim_of(part_of(minus={"method": "b"}, relative=True)), {"s": summary}).measured
    assert one.sample is not None
    assert (one.unit, one.sample.mean) == ("%", pytest.approx((20 + 25) / 2))


def test_spread_over_a_swept_key_counts_only_complete_seeds() -> None:
    runs = [
        Record(seed=seed, parameters={"width": width}, values={"accuracy": value})
        for seed, width, value in [(0, 1, 0.5), (0, 2, 0.7), (1, 1, 0.5), (1, 2, 0.6), (2, 1, 0.1)]
    ]
    summary = summary_of({}, runs=tuple(runs))
    (one,) = decide(claim_of(part_of(of={}, spread_over="width")), {"s": summary}).measured
    assert one.sample is not None
    assert (one.sample.n, one.sample.mean) == (2, pytest.approx(15))


def test_missing_runs_are_not_run_and_unknown_ones_an_error() -> None:
    assert decide(claim_of(part_of()), {}).verdict == NOT_RUN
    unfinished = summary_of({"b": [0.5, 0.5]}, planned=4)
    assert decide(claim_of(part_of()), {"s": unfinished}).reason == "sweeps/claims/s.yaml is not finished."
    with pytest.raises(ConfigError, match=r"claim A1, x: no run of 's' has \{'method': 'a'\}"):
        decide(claim_of(part_of()), {"s": summary_of({"b": [0.5, 0.5]})})
