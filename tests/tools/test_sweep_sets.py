"""Objectives averaged over seeds, and two objectives: proposals, pruning, the front, and real sweeps."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import pytest
import yaml
from optuna import Study as OptunaStudy
from optuna.pruners import NopPruner
from optuna.samplers import RandomSampler
from optuna.trial import FrozenTrial, TrialState

from gradspike.errors import ConfigError
from gradspike.tools.sweep import words as sweep_words
from gradspike.tools.sweep.distributions import LogUniformValues
from gradspike.tools.sweep.file import Metric, SweepFile, read
from gradspike.tools.sweep.folder import SweepFolder
from gradspike.tools.sweep.parameters import Categorical
from gradspike.tools.sweep.proposals import Proposal, proposals
from gradspike.tools.sweep.results import front, results_table
from gradspike.tools.sweep.sets import SEED, grouped, proposed
from gradspike.tools.sweep.study import Study, build_pruner
from helpers.command import TINY
from helpers.forks import fork_server
from helpers.slurm_cluster import slurm_cluster, why_not

ACCURACY = Metric(name="val/accuracy", goal="maximize")
RATE = Metric(name="val/firing_rate", goal="minimize")
SPACE = {
    "seed": Categorical(values=[0, 1]),
    "lr": LogUniformValues(min=1e-4, max=1.0, distribution="log_uniform_values"),
}
COMMAND = ["${env}", "${interpreter}", "${program}", "logger=wandb", "${args_no_hyphens}"]


def write(folder: Path, parameters: dict[str, Any], **keys: Any) -> Path:
    metric = {"name": "val/accuracy", "goal": "maximize"}
    whole = {"program": "src/train.py", "method": "grid", "metric": metric, "command": COMMAND, **keys}
    file = folder / "some.yaml"
    file.write_text(yaml.safe_dump({**whole, "parameters": parameters}, sort_keys=False))
    return file


def listed(file: SweepFile, trials: int | None = None) -> list[Proposal]:
    return proposals(file, sweep_words.build(file, []), trials, 0)


def sets_of(count: int) -> list[Proposal]:
    return [Proposal(f"{n} {seed}", None, f"set {n}", seed) for n in range(count) for seed in (0, 1)]


@pytest.mark.parametrize("method", ["grid", "random", "bayes"])
def test_a_trial_is_a_set_of_all_seeds(tmp_path: Path, method: str) -> None:
    values = {"seed": {"values": [3, 5]}, "method": {"values": ["fixed_sg", "psg", "lsg"]}}
    file = read(write(tmp_path, values, method=method, run_cap=2, gradspike={"average_over": "seed"}))
    found = listed(file)
    assert [one.seed for one in found] == [3, 5, 3, 5], "two sets of two seeds"
    assert found[0].set == found[1].set != found[2].set
    assert len({one.key for one in found}) == 4
    if method != "bayes":
        assert found[0].values is not None
        assert found[1].values == {**found[0].values, "seed": 5}


class Seen(RandomSampler):
    """Remembers the results that a search can learn from."""

    def before_trial(self, study: OptunaStudy, trial: FrozenTrial) -> None:
        self.values = [one.values for one in study.get_trials() if one.state == TrialState.COMPLETE]


def test_a_search_proposes_once_for_a_set_and_learns_from_its_mean() -> None:
    study = Study("sqlite://", "s", ACCURACY, NopPruner(), 0)
    study.fill(sets_of(3), {})
    tried = []
    for trial in study.trials()[:5]:
        assert study.take(trial, "here", "this machine")
        values = study.propose(trial.number, SPACE)
        assert values == study.propose(trial.number, SPACE), "proposed again after a kill"
        assert values["seed"] == trial.user_attrs[SEED]
        tried.append(values["lr"])
        study.finish(trial.number, [0.1 * trial.number])
    assert tried[:4:2] == tried[1:4:2]
    assert len(set(tried)) == 3
    seen = Seen()
    proposed(study.trials(), 5, ["maximize"], seen, lambda trial: {"lr": SPACE["lr"].suggest(trial, "lr")})
    assert seen.values == [[pytest.approx(0.05)], [pytest.approx(0.25)]]


def test_only_the_first_trial_of_a_set_proposes() -> None:
    study = Study("sqlite://", "s", ACCURACY, NopPruner(), 0)
    study.fill(sets_of(1), {})
    first, second = study.trials()
    assert not study.waits_for_values(first)
    assert study.waits_for_values(second)
    study.propose(0, SPACE)
    assert not study.waits_for_values(second)


def test_a_set_is_pruned_as_one() -> None:
    """Its worse seed alone would be stopped, its better one alone would not."""
    study = Study("sqlite://", "p", ACCURACY, build_pruner("median", None, 9), seed=0)
    study.fill([Proposal(f"{n} {s}", {"lr": n, "seed": s}, f"set {n}", s) for n in range(6) for s in (0, 1)], {})
    for members in grouped(study.trials()).values():
        good = members[0].number < 10
        for member in members:
            assert study.take(member, "here", "this machine")
        stopped = []
        for epoch in range(1, 4):
            assert not study.report(members[0].number, epoch, 0.8 if good else 0.9), "its other seed is not there yet"
            stopped.append(study.report(members[1].number, epoch, 0.4 if good else 0.1 if epoch > 1 else 0.0))
            if stopped[-1]:
                break
        assert any(stopped) != good
        for member in members:
            if good:
                study.finish(member.number, [0.6])
            else:
                study.prune(member.number, study.last_reported(member.number))


def test_the_trials_of_a_pruned_set_do_not_start() -> None:
    study = Study("sqlite://", "p", ACCURACY, build_pruner("median", None, 9), seed=0)
    study.fill([Proposal(f"{s}", {"seed": s}, "set", s) for s in (0, 1)] + [Proposal("x", {"seed": 0})], {})
    study.prune_waiting(0)
    assert [trial.state.name for trial in study.trials()] == ["PRUNED", "PRUNED", "WAITING"]


def test_pruned_and_unfinished_sets_are_no_results() -> None:
    study = Study("sqlite://", "p", ACCURACY, NopPruner(), seed=0)
    study.fill([Proposal(f"{n} {s}", {"lr": n, "seed": s}, f"set {n}", s) for n in range(3) for s in (0, 1)], {})
    for trial, value in zip(study.trials()[:5], (0.8, 0.6, 0.7, 0.1, 0.9), strict=True):
        assert study.take(trial, "here", "this machine")
        if trial.number == 3:
            study.prune(3, value)
        else:
            study.finish(trial.number, [value])
    table = results_table(study.trials(), [ACCURACY])
    assert table is not None
    cells = [list(column.cells) for column in table.columns]
    assert cells == [["lr=0"], ["2"], ["70.00 % ± 14.14 %"]]


def test_the_front_by_hand() -> None:
    assert front([[0.9, 0.2], [0.8, 0.1], [0.7, 0.3], [0.9, 0.2], [0.8, 0.05]], [ACCURACY, RATE]) == {0, 3, 4}
    assert front([[0.9], [0.8]], [ACCURACY]) == {0}


def test_a_search_with_two_objectives_approaches_the_front() -> None:
    study = Study("sqlite://", "s", ACCURACY, NopPruner(), 0, RATE)
    study.fill([Proposal(str(n), None) for n in range(12)], {})
    for trial in study.trials():
        assert study.take(trial, "here", "this machine")
        lr = study.propose(trial.number, {"lr": SPACE["lr"]})["lr"]
        study.finish(trial.number, [lr, lr])
    assert len(front([trial.values for trial in study.trials()], [ACCURACY, RATE])) == 12


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"gradspike": {"average_ove": "seed"}}, "unknown key 'gradspike.average_ove'. Did you mean 'average_over'?"),
        ({"gradspike": {"average_over": "lr"}}, "gradspike.average_over: must be"),
        ({"gradspike": {"second": {"name": "val/loss"}}}, "gradspike.second.goal: is missing"),
        ({"gradspike": {"second": {"name": "val/acuracy", "goal": "maximize"}}}, "unknown second metric 'val/acuracy'"),
        ({"gradspike": {"second": {"name": "test/accuracy", "goal": "maximize"}}}, "unknown second metric"),
        ({"gradspike": {"second": {"name": "val/accuracy", "goal": "maximize"}}}, "unknown second metric"),
        (
            {
                "gradspike": {"second": {"name": "energy_nj", "goal": "minimize"}},
                "early_terminate": {"type": "hyperband", "min_iter": 1},
            },
            "a pruner compares one metric",
        ),
    ],
)
def test_mistakes_in_our_key(tmp_path: Path, keys: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        read(write(tmp_path, {"seed": {"values": [0, 1]}}, **keys))
    assert said in str(refusal.value)


def test_seeds_to_average_over_are_listed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"list the seeds, as in  parameters: \{seed: \{values"):
        read(write(tmp_path, {"method": {"values": ["psg", "lsg"]}}, gradspike={"average_over": "seed"}))


def swept(
    folder: Path,
    data: Path,
    parameters: dict[str, Any],
    *words: str,
    variables: dict[str, str] | None = None,
    **keys: Any,
) -> tuple[SweepFolder, str]:
    constants = dict(word.split("=") for word in TINY if not word.startswith("trainer.progress"))
    constant = {name: {"value": yaml.safe_load(value)} for name, value in constants.items()}
    file = write(folder, {**constant, **{name: {"values": values} for name, values in parameters.items()}}, **keys)
    line = ["sweep", str(file), f"data_dir={data}", f"folder={folder / 's'}", *words]
    runner = fork_server().start(*line, log=folder / "said", cwd=folder, **(variables or {}))
    assert runner.wait(180) == 0, (folder / "said").read_text()
    return SweepFolder(folder / "s"), (folder / "said").read_text()


@pytest.mark.slow
def test_a_real_sweep_prunes_both_seeds(tmp_path: Path, data_dir: Path) -> None:
    early = {"type": "hyperband", "min_iter": 1, "eta": 2}
    folder, said = swept(
        tmp_path, data_dir, {"optimizer.lr": [0.1, 1e-6], "seed": [0, 1]}, "workers=2", "trainer.max_epochs=15",
        early_terminate=early, gradspike={"average_over": "seed"},
    )  # fmt: skip
    states = [record.state for number in range(4) if (record := folder.record(number)) is not None]
    assert states == ["finished", "finished", "pruned", "pruned"], said
    values = [record.value or 0.0 for number in (0, 1) if (record := folder.record(number)) is not None]
    table = said.partition("Mean over seeds")[2]
    assert "optimizer.lr=0.1" in table
    assert "optimizer.lr=1e-06" not in table, "a pruned set is no result"
    assert f"{100 * statistics.fmean(values):.2f} %" in said


@pytest.mark.slow
def test_a_real_sweep_shows_the_front(tmp_path: Path, data_dir: Path) -> None:
    folder, said = swept(
        tmp_path, data_dir, {"method.v_threshold": [0.5, 4.0]}, "workers=2", "trainer.max_epochs=1",
        gradspike={"second": {"name": "energy_nj", "goal": "minimize"}},
    )  # fmt: skip
    found = [record for number in (0, 1) if (record := folder.record(number)) is not None]
    assert all(record.second is not None and record.second > 0 for record in found)
    values = [[record.value or 0.0, record.second or 0.0] for record in found]
    table = said.partition("Both objectives")[2]
    assert table.count("*") == len(front(values, [ACCURACY, Metric(name="energy_nj", goal="minimize")]))
    assert "nJ" in table


@pytest.mark.slow
@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
def test_a_set_of_seeds_with_two_objectives_trains_as_slurm_jobs(tmp_path: Path, data_dir: Path) -> None:
    slurm = tmp_path / "slurm"
    slurm.mkdir()
    with slurm_cluster(slurm) as cluster:
        folder, said = swept(
            tmp_path, data_dir, {"method.v_threshold": [0.5, 1.0, 2.0], "seed": [0, 1]}, "executor=slurm", "workers=2",
            "slurm.cpus_per_task=1", "slurm.timeout_min=20", "trainer.max_epochs=1", method="bayes", run_cap=1,
            variables=cluster.variables,
            gradspike={"average_over": "seed", "second": {"name": "energy_nj", "goal": "minimize"}},
        )  # fmt: skip
    found = [record for number in (0, 1) if (record := folder.record(number)) is not None]
    assert [(record.state, record.parameters["seed"], bool(record.job)) for record in found] == [
        ("finished", 0, True),
        ("finished", 1, True),
    ], said
    assert found[0].parameters["method.v_threshold"] == found[1].parameters["method.v_threshold"]
    means = [statistics.fmean(values) for values in zip(*(record.values for record in found), strict=True)]
    table = said.partition("Mean over seeds")[2]
    assert f"{100 * means[0]:.2f} %" in table
    assert "nJ" in table
