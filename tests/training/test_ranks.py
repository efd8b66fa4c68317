"""N ranks are one process: the same weights and buffers, in float64, for everything that looks at a whole batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

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
    # Twenty steps cross epochs, whose last 59 and 17 samples are left out; shares of 50 and of 23 samples.
    "averaged, odd rest": ["method=mpd_agl", "trainer.ema=0.9", "dataset.batch_size=200", "trainer.accumulate=2"],
    "averaged, odd shares": ["method=ds_atgo", "trainer.ema=0.9", "dataset.batch_size=138", "trainer.accumulate=3"],
    "tet on events": ["method=ds_atgo", "dataset=digits_events", "loss=tet", "time_steps=3"],
    "plain gain": ["method=mpd_agl", "norm.name=tdbn_gain", "model.encoder=latency", "dataset.normalize=unit"],
}
# One of each way through the fused layer: statistics before all steps, with moments of u, and step by step.
FUSED = ("method mpd_agl", "method psg_pda", "method ds_atgo")
FOUR = ("method ds_atgo", "mixed")
APART = {
    "method psg_pda": "norm.sync=false",
    "method ds_atgo": "method.sync_stats=false",
    "mixed": "method.sync_stats=false",  # PDA's moments
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Callable[..., States]:
    """The states after training cases on some ranks; cases of one process are trained once."""

    def states(name: str, world_size: int, cases: Mapping[str, list[str]], **options: Any) -> States:
        folder = tmp_path_factory.mktemp("ranks")
        words = {case: [*BASE, f"data_dir={data_dir}", *more] for case, more in cases.items()}
        (folder / "plan.json").write_text(
            json.dumps([{"name": name, "world_size": world_size, "cases": words, **options}])
        )
        paths = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")])
        done = subprocess.run(
            [sys.executable, str(WORKER), str(folder / "plan.json"), str(folder)],
            capture_output=True,
            text=True,
            timeout=500,
            env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        )
        assert done.returncode == 0, done.stderr[-3000:]
        result: States = torch.load(folder / f"{name}.pt", weights_only=True)
        return result

    return states


@pytest.fixture(scope="module")
def one_process(trained: Callable[..., States]) -> States:
    return trained("one", 1, CASES)


def furthest(state: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """The largest difference, relative to the largest value of its tensor."""
    assert state.keys() == other.keys()
    return max(
        float((value.double() - other[key].double()).abs().max() / other[key].double().abs().max().clamp_min(1e-3))
        for key, value in state.items()
        if not key.endswith("width_clamps")
    )


@pytest.mark.parametrize(("world_size", "names"), [(2, tuple(CASES)), (4, FOUR)])
def test_ranks_are_one_process(
    trained: Callable[..., States], one_process: States, world_size: int, names: tuple[str, ...]
) -> None:
    together = trained("several", world_size, {name: CASES[name] for name in names})
    assert {name: furthest(together[name], one_process[name]) < 1e-10 for name in names} == dict.fromkeys(names, True)


@pytest.mark.parametrize("engine", ["formulas", pytest.param("compiled", marks=pytest.mark.slow)])
def test_ranks_with_a_fused_engine_are_one_process(
    trained: Callable[..., States], one_process: States, engine: str
) -> None:
    together = trained("several", 2, {name: CASES[name] for name in FUSED}, engine=engine)
    assert {name: furthest(together[name], one_process[name]) < 1e-10 for name in FUSED} == dict.fromkeys(FUSED, True)


def test_each_rank_for_itself_is_another_experiment(trained: Callable[..., States], one_process: States) -> None:
    """What the tests above would see without any one of the collectives."""
    cases = {name: [*CASES[name], word] for name, word in APART.items()}
    several = trained("several", 2, cases, unequal=True)
    assert all(furthest(several[name], one_process[name]) > 1e-6 for name in APART)
