"""DS-ATGO: formulas of both parts, the running threshold, every ablation, statistics over ranks."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, multiprocessing

from gradspike.methods.ds_atgo import DsAtgo
from gradspike.spiking_norm import SpikingNorm
from helpers.method_checks import C, T, make_input, make_layer, method_config, step


def layer_with(**options: object) -> SpikingNorm:
    return make_layer(method_config("ds_atgo", **options))


def running(layer: SpikingNorm) -> Tensor:
    assert isinstance(layer.method, DsAtgo)
    return layer.method.running_threshold.clone()


@pytest.mark.parametrize("driver", ["std", "threshold"])
@pytest.mark.parametrize("tgo", [False, True])
@pytest.mark.parametrize("at", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_formulas(training: bool, at: bool, tgo: bool, driver: str) -> None:
    """Thresholds and widths recomputed from the trace's own u."""
    v_threshold, factor, k = 0.8, 1.2, 0.7
    layer = layer_with(at=at, tgo=tgo, driver=driver, v_threshold=v_threshold, firing_factor=factor, k=k)
    layer(make_input(4))
    before = running(layer)
    trace = layer.train(training).inspect(make_input())
    u = trace.u.flatten(1)
    adaptive = factor * (u.mean(1) + u.std(1)) if training else before
    thresholds = adaptive if at else torch.full((T,), v_threshold)
    drivers = u.std(1) if driver == "std" else thresholds
    widths = k * (1 + torch.tanh(drivers - v_threshold)) if tgo else torch.full((T,), k)
    torch.testing.assert_close(trace.thresholds, thresholds)
    torch.testing.assert_close(trace.widths, widths)
    assert torch.equal(running(layer), before)


@pytest.mark.parametrize(("average", "momentum"), [(True, 0.1), (True, 0.4), (False, 0.1)])
@pytest.mark.parametrize("source", ["measured", "estimated"])
def test_running_threshold_follows_and_evaluation_uses_it(source: str, average: bool, momentum: float) -> None:
    layer = layer_with(threshold_source=source, moving_average=average, momentum=momentum)
    expected = torch.ones(T)
    share = momentum if average else 1.0
    for seed in range(3):
        used = layer.inspect(make_input(seed)).thresholds
        layer(make_input(seed))
        expected = (1 - share) * expected + share * used
        torch.testing.assert_close(running(layer), expected)
    layer.eval()
    assert torch.equal(layer.inspect(make_input(5)).thresholds, running(layer))


def test_estimated_threshold() -> None:
    layer = layer_with(threshold_source="estimated", firing_factor=0.9, v_threshold=0.7)
    expected = 0.9 * math.sqrt(1 + 0.2**2) * 0.7
    assert layer.inspect(make_input()).thresholds.tolist() == pytest.approx([expected] * T)


def test_neither_part_is_the_fixed_method() -> None:
    off, fixed = layer_with(at=False, tgo=False), make_layer(method_config("fixed_sg"))
    for ours, theirs in zip(step(off, make_input()), step(fixed, make_input()), strict=True):
        assert torch.equal(ours, theirs)


def test_without_the_moving_average_a_prediction_ignores_its_batch() -> None:
    layer = layer_with(moving_average=False)
    layer(make_input())
    layer.eval()
    y = make_input(6).unflatten(0, (T, -1))
    together = layer(y.flatten(0, 1)).unflatten(0, (T, -1))
    assert torch.equal(layer(y[:, 2:3].flatten(0, 1)), together[:, 2])


def test_evaluation_is_the_same_with_and_without_gradients() -> None:
    """Widths are measured in evaluation only if a backward pass may follow; spikes never depend on them."""
    layer = layer_with()
    layer(make_input())
    layer.eval()
    facts = layer.facts(make_input(), gradients=False)
    assert not layer.method.measures(facts)
    with torch.no_grad():
        quiet = layer(make_input(6))
    assert torch.equal(layer(make_input(6)), quiet)


def test_a_training_step_between_forward_and_backward_does_no_harm() -> None:
    layer = layer_with(tgo=False).eval()
    y = make_input().requires_grad_()
    out = layer(y)
    (expected,) = torch.autograd.grad(layer(y).sum(), y)
    # The norm is in evaluation mode: torch's batch norm reads its running statistics again in the backward pass.
    layer.train().norm.eval()
    layer(make_input(3))
    (actual,) = torch.autograd.grad(out.sum(), y)
    assert torch.equal(actual, expected)


def test_firing_rate_of_a_normal_potential() -> None:
    """P(u > mean + std) = 15.87 % for normal u: exact at the first step, where u is the current."""
    layer = make_layer(method_config("ds_atgo"), time_steps=1, channels=8)
    torch.nn.init.ones_(layer.norm.weight)
    y = torch.randn(400, 8, 16, generator=torch.Generator().manual_seed(0))
    assert layer(y).mean().item() == pytest.approx(0.1587, abs=0.005)


def _rank(rank: int, store: str, out: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    result = {}
    for sync in (False, True):
        layer = layer_with(sync_stats=sync)
        # Without the norm, whose statistics are per rank in any case.
        layer.norm.eval()
        layer(make_input(0).unflatten(0, (T, -1))[:, slice(2) if rank == 0 else slice(2, None)].flatten(0, 1))
        result[sync] = running(layer)
    torch.save(result, f"{out}{rank}")
    # Not by way of Python's own end: gloo's thread may still drop the last tensors, which aborts an ending interpreter.
    os._exit(0)


def test_sync_stats_sees_the_batch_of_all_ranks(tmp_path: Path) -> None:
    multiprocessing.spawn(_rank, (str(tmp_path / "store"), str(tmp_path / "out")), nprocs=2)
    first, second = (torch.load(tmp_path / f"out{rank}") for rank in range(2))
    whole = layer_with()
    whole.norm.eval()
    whole(make_input(0))
    assert not torch.allclose(first[False], second[False])
    assert torch.equal(first[True], second[True])
    # Step 0 is exact, and so are later steps, because every rank fires at the threshold of the whole batch.
    torch.testing.assert_close(first[True], running(whole))
    assert whole.channels == C
