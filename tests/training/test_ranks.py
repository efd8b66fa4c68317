"""N ranks are one process: the same weights and buffers, in float64, for everything that looks at a whole batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from gradspike.methods.registry import METHODS
from helpers.command import ROOT, TINY

States = dict[str, dict[str, Tensor]]
WORKER = ROOT / "tests" / "helpers" / "ranks_worker.py"
BASE = [*TINY, "dataset.batch_size=48", "time_steps=3", "optimizer.lr=0.05", "model.width=3"]
CASES = {
    **{f"method {name}": [f"method={name}"] for name in METHODS.names()},
    "twin": ["model.activation=relu"],
    "one value a channel and sample": ["method=ds_atgo", "model.depth=4"],
    "accumulated": ["method=ds_atgo", "trainer.accumulate=2"],
    "mixed": ["method=psg_pda", "loss.mixup=0.4", "loss.cutmix=1", "trainer.accumulate=3"],
    "tet on events": ["method=ds_atgo", "dataset=digits_events", "loss=tet", "time_steps=3"],
    "plain gain": ["method=mpd_agl", "norm.name=tdbn_gain", "model.encoder=latency", "dataset.normalize=unit"],
}
# One of each way through the fused layer: statistics before all steps, with moments of u, and step by step.
FUSED = ("method mpd_agl", "method psg_pda", "method ds_atgo")


def run(folder: Path, world_size: int, cases: dict[str, list[str]], name: str, **environment: str) -> States:
    """The states after training every case on `world_size` ranks."""
    folder.mkdir(exist_ok=True)
    listed, out = folder / "cases.json", folder / f"{name}.pt"
    listed.write_text(json.dumps(cases))
    store = str(folder / f"{name}.store") if world_size > 1 else "-"
    paths = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")])
    processes = [
        subprocess.Popen(
            [sys.executable, str(WORKER), str(rank), str(world_size), store, str(listed), str(out)],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", **environment},
        )
        for rank in range(world_size)
    ]
    for process in processes:
        _, said = process.communicate(timeout=500)
        assert process.returncode == 0, said[-3000:]
    states: States = torch.load(out, weights_only=True)
    return states


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> States:
    return run(tmp_path_factory.mktemp("one"), 1, words(CASES, data_dir), "one")


def words(cases: dict[str, list[str]], data_dir: Path) -> dict[str, list[str]]:
    return {name: [*BASE, f"data_dir={data_dir}", *case] for name, case in cases.items()}


def furthest(state: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """The largest difference, relative to the largest value of its tensor."""
    assert state.keys() == other.keys()
    return max(
        float((value.double() - other[key].double()).abs().max() / other[key].double().abs().max().clamp_min(1e-3))
        for key, value in state.items()
        if not key.endswith("width_clamps")
    )


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_are_one_process(tmp_path: Path, data_dir: Path, one_process: States, world_size: int) -> None:
    together = run(tmp_path, world_size, words(CASES, data_dir), "several")
    assert {name: furthest(together[name], one_process[name]) < 1e-10 for name in CASES} == dict.fromkeys(CASES, True)


@pytest.mark.parametrize("engine", ["formulas", pytest.param("compiled", marks=pytest.mark.slow)])
def test_ranks_with_a_fused_engine_are_one_process(
    tmp_path: Path, data_dir: Path, one_process: States, engine: str
) -> None:
    cases = words({name: CASES[name] for name in FUSED}, data_dir)
    together = run(tmp_path, 2, cases, "several", GRADSPIKE_TEST_ENGINE=engine)
    assert {name: furthest(together[name], one_process[name]) < 1e-10 for name in FUSED} == dict.fromkeys(FUSED, True)


def test_each_rank_for_itself_is_another_experiment(tmp_path: Path, data_dir: Path) -> None:
    """What the test above would see without any one of the collectives."""
    apart = {
        "norm": ["method=psg_pda", "norm.sync=false"],
        "statistics of DS-ATGO": ["method=ds_atgo", "method.sync_stats=false"],
        "moments of PDA": ["method=psg_pda", "method.sync_stats=false", "method.pda_weight=1"],
    }
    cases = words(apart, data_dir)
    one = run(tmp_path / "one", 1, cases, "one")
    several = run(tmp_path / "two", 2, cases, "two", GRADSPIKE_TEST_UNEQUAL="1")
    assert all(furthest(several[name], one[name]) > 1e-6 for name in apart)
