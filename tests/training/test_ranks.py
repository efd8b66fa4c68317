"""N ranks are one process: the same weights and buffers, in float64, for everything that looks at a whole batch."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gradspike.methods.registry import METHODS
from helpers.command import ROOT, TINY, execute

States = dict[str, dict[str, Tensor]]
WORKER = ROOT / "tests" / "helpers" / "ranks_worker.py"
BASE = [*TINY, "dataset.batch_size=48", "time_steps=3", "optimizer.lr=0.05", "model.width=3"]
CASES = {
    **{f"method {name}": [f"method={name}"] for name in METHODS.names()},
    "twin": ["model.activation=relu"],
    "one value a channel and sample": ["method=ds_atgo", "model.depth=4"],
    "accumulated": ["method=ds_atgo", "trainer.accumulate=2"],
    "mixed": ["method=psg_pda", "loss.mixup=0.4", "loss.cutmix=1", "trainer.accumulate=3"],
    # 20 steps cross the end of an epoch, whose last 59 and 17 samples are left out; shares of 50 and of 23 samples.
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


Trained = Callable[..., dict[str, States]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Trained:
    """The states after training, by the names of the entries of a plan (`ranks_worker.py`)."""

    def states(**entries: Mapping[str, Any]) -> dict[str, States]:
        folder = tmp_path_factory.mktemp("ranks")
        plan: list[dict[str, Any]] = []
        for name, entry in entries.items():
            words = {case: [*BASE, f"data_dir={data_dir}", *more] for case, more in entry["cases"].items()}
            plan.append({"name": name, **entry, "cases": words})
        (folder / "plan.json").write_text(json.dumps(plan))
        done = execute(
            sys.executable, str(WORKER), str(folder / "plan.json"), str(folder),
            timeout=500, PYTHONPATH=str(ROOT / "tests"), OMP_NUM_THREADS="1",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        return {name: torch.load(folder / f"{name}.pt", weights_only=True) for name in entries}

    return states


@pytest.fixture(scope="module")
def all_states(trained: Trained) -> dict[str, States]:
    """Everything that the tests below compare, from one process and its forks."""
    apart = {name: [*CASES[name], word] for name, word in APART.items()}
    return trained(
        one={"world_size": 1, "cases": CASES},
        two={"world_size": 2, "cases": CASES},
        four={"world_size": 4, "cases": {name: CASES[name] for name in FOUR}},
        formulas={"world_size": 2, "cases": {name: CASES[name] for name in FUSED}, "engine": "formulas"},
        apart={"world_size": 2, "cases": apart, "unequal": True},
    )


def furthest(state: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """The largest difference, relative to the largest value of its tensor."""
    assert state.keys() == other.keys()
    return max(
        float((value.double() - other[key].double()).abs().max() / other[key].double().abs().max().clamp_min(1e-3))
        for key, value in state.items()
        if not key.endswith("width_clamps")
    )


def assert_one_process(together: States, one: States, names: Iterable[str]) -> None:
    assert {name: furthest(together[name], one[name]) < 1e-10 for name in names} == dict.fromkeys(names, True)


@pytest.mark.parametrize(("entry", "names"), [("two", tuple(CASES)), ("four", FOUR), ("formulas", FUSED)])
def test_ranks_are_one_process(all_states: dict[str, States], entry: str, names: tuple[str, ...]) -> None:
    assert_one_process(all_states[entry], all_states["one"], names)


@pytest.mark.slow
def test_ranks_with_compiled_neurons_are_one_process(trained: Trained, all_states: dict[str, States]) -> None:
    cases = {name: CASES[name] for name in FUSED}
    together = trained(compiled={"world_size": 2, "cases": cases, "engine": "compiled"})["compiled"]
    assert_one_process(together, all_states["one"], FUSED)


def test_each_rank_for_itself_is_another_experiment(all_states: dict[str, States]) -> None:
    """What the tests above would see without any one of the collectives."""
    assert all(furthest(all_states["apart"][name], all_states["one"][name]) > 1e-6 for name in APART)
