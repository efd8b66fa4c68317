"""N ranks train like one process: same weights and buffers in float64, for everything computed over a whole batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from gradspike.methods.registry import METHODS
from helpers.ranks import ROUNDING, States, furthest, train_entries

CASES = {
    # asgl draws its noise on each rank, as dropout does.
    **{f"method {name}": [f"method={name}"] for name in METHODS.names() if name != "asgl"},
    "method asgl": ["method=asgl", "method.p=0"],
    "a width for each neuron": ["method=asgl", "method.p=0", "method.width_per=neuron"],
    "chosen by differences": ["method=dspike_adaptive", "method.weights=3"],
    "start at the mean": ["method=fixed_sg", "neuron=trsg"],
    "twin": ["model.activation=relu"],
    "one value a channel and sample": ["method=ds_atgo", "model.depth=4"],
    "accumulated": ["method=ds_atgo", "trainer.accumulate=2"],
    "mixed": ["method=psg_pda", "loss.mixup=0.4", "loss.cutmix=1", "trainer.accumulate=3"],
    # 4 steps cross the end of an epoch, which drops its last 59 and 125 samples; shares of 100 and 63 samples.
    "averaged, odd rest": ["method=mpd_agl", "trainer.ema=0.9", "dataset.batch_size=400", "trainer.accumulate=2"],
    "averaged, odd shares": ["method=ds_atgo", "trainer.ema=0.9", "dataset.batch_size=378", "trainer.accumulate=3"],
    "fed back": ["model=spiking_rnn", "model.hidden=[8,8]", "dataset=digits_events", "time_steps=3", "method=psg_pda"],
    "tet on events": ["method=ds_atgo", "dataset=digits_events", "loss=tet", "time_steps=3"],
    **{f"norm {name}": ["method=mpd_agl", f"norm={name}"] for name in ("bn", "tebn", "tab", "mpbn")},
    "transformer": ["model=spikformer", "model.dim=16", "model.heads=2", "model.depth=1", "model.mlp_ratio=1"],
    "currents": ["model=ms_resnet18", "model.width=0.07", "model.depths=[1,1,1,1]"],
    "plain gain": ["method=mpd_agl", "norm=tdbn_gain", "model.encoder=latency", "dataset.normalize=unit"],
}
# One of each way through the fused layer: statistics before all steps, with moments of u, and step by step.
FUSED = ("method mpd_agl", "method psg_pda", "method ds_atgo", "start at the mean")
FOUR = ("method ds_atgo", "mixed", "norm tab")
APART = {
    "method psg_pda": "norm.sync=false",
    "norm tebn": "norm.sync=false",
    "norm tab": "norm.sync=false",
    "norm mpbn": "norm.sync=false",
    "method ds_atgo": "method.sync_stats=false",
    "mixed": "method.sync_stats=false",  # PDA's moments
}


Trained = Callable[..., dict[str, States]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Trained:
    """The states after training, by the names of the entries of a plan."""

    def states(**entries: Mapping[str, Any]) -> dict[str, States]:
        return train_entries(tmp_path_factory.mktemp("ranks"), data_dir, entries)

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
        gradients={"world_size": 4, "cases": {"passes": ["model.depth=4"]}, "gradients": True},
    )


def assert_one_process(together: States, one: States, names: Iterable[str]) -> None:
    assert {name: furthest(together[name], one[name]) < ROUNDING for name in names} == dict.fromkeys(names, True)


@pytest.mark.parametrize(("entry", "names"), [("two", tuple(CASES)), ("four", FOUR), ("formulas", FUSED)])
def test_ranks_are_one_process(all_states: dict[str, States], entry: str, names: tuple[str, ...]) -> None:
    assert_one_process(all_states[entry], all_states["one"], names)


@pytest.mark.slow
def test_ranks_with_compiled_neurons_are_one_process(trained: Trained, all_states: dict[str, States]) -> None:
    cases = {name: CASES[name] for name in FUSED}
    together = trained(compiled={"world_size": 2, "cases": cases, "engine": "compiled"})["compiled"]
    assert_one_process(together, all_states["one"], FUSED)


def test_each_rank_for_itself_is_another_experiment(all_states: dict[str, States]) -> None:
    """What the tests above would see if one of the collectives were missing."""
    assert all(furthest(all_states["apart"][name], all_states["one"][name]) > 1e-6 for name in APART)


def test_gradients_do_not_depend_on_their_place_in_a_bucket(all_states: dict[str, States]) -> None:
    """DistributedDataParallel rearranges its buckets after the first pass, also in a resumed run."""
    first, *later = all_states["gradients"].values()
    assert len(first) > 8
    for other in later:
        assert {name: torch.equal(first[name], value) for name, value in other.items()} == dict.fromkeys(first, True)
