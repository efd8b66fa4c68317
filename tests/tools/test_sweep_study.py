"""The trials of a sweep: draws and their distributions, searches that repeat, what may grow, pruners."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

from gradspike.errors import ConfigError, UserError
from gradspike.tools.sweep import words as sweep_words
from gradspike.tools.sweep.definition import check_same, definition
from gradspike.tools.sweep.distributions import distribution_of
from gradspike.tools.sweep.file import Metric, read
from gradspike.tools.sweep.folder import SweepFolder
from gradspike.tools.sweep.options import SweepArguments
from gradspike.tools.sweep.parameters import Categorical
from gradspike.tools.sweep.proposals import Proposal, check_all, proposals
from gradspike.tools.sweep.ranges import LogUniformValues, QUniform
from gradspike.tools.sweep.storage import hidden
from gradspike.tools.sweep.study import Study, build_pruner, preview
from helpers.sweep_files import all_proposals, write

ACCURACY = Metric(name="val/accuracy", goal="maximize")


def test_the_ends_of_a_range_are_tried_too(tmp_path: Path) -> None:
    file = read(write(tmp_path, method="random", parameters={"neuron.decay": {"min": 0.1, "max": 1.5}}))
    with pytest.raises(ConfigError, match=r"neuron\.decay=1\.5"):
        check_all(file, sweep_words.build(file, []), [])


DISTRIBUTIONS = {
    "whole": {"min": 1, "max": 3},
    "real": {"min": 0.0, "max": 1.0},
    "steps": {"distribution": "q_uniform", "min": 0.1, "max": 0.5, "q": 0.1},
    "logs": {"distribution": "log_uniform_values", "min": 1e-4, "max": 1.0},
    "log_steps": {"distribution": "q_log_uniform_values", "min": 1, "max": 1000, "q": 10},
    "bell": {"distribution": "normal", "mu": 5.0, "sigma": 0.1},
    "bell_steps": {"distribution": "q_normal", "mu": 5.0, "sigma": 2.0, "q": 2},
    "log_bell": {"distribution": "log_normal", "mu": 0.0, "sigma": 1.0},
    "log_bell_steps": {"distribution": "q_log_normal", "mu": 3.0, "sigma": 1.0},
    "words": {"values": ["a", "b"], "probabilities": [0.9, 0.1]},
}


def draws(name: str, count: int = 2000) -> list[Any]:
    parameter = distribution_of(name, DISTRIBUTIONS[name]).model_validate(DISTRIBUTIONS[name])
    random = Random(0)
    return [parameter.draw(random) for _ in range(count)]


def test_draws_follow_their_distributions() -> None:
    assert set(draws("whole")) == {1, 2, 3}
    assert 0.45 < sum(draws("real")) / 2000 < 0.55
    assert set(draws("steps")) == {0.1, 0.2, 0.3, 0.4, 0.5}
    logs = draws("logs")
    assert min(logs) >= 1e-4
    assert max(logs) <= 1
    assert 0.45 < sum(value < 1e-2 for value in logs) / 2000 < 0.55
    assert all(value % 10 == 0 for value in draws("log_steps"))
    assert 4.98 < sum(draws("bell")) / 2000 < 5.02
    assert all(value % 2 == 0 for value in draws("bell_steps"))
    assert 0.45 < sum(value < 1 for value in draws("log_bell")) / 2000 < 0.55
    assert all(isinstance(value, int) for value in draws("log_bell_steps"))
    assert 0.87 < draws("words").count("a") / 2000 < 0.93


def test_random_draws_repeat_and_more_of_them_continue_the_same_row(tmp_path: Path) -> None:
    file = read(write(tmp_path, method="random", parameters={"optimizer.lr": DISTRIBUTIONS["logs"]}))
    assert all_proposals(file, 5) == all_proposals(file, 5) == all_proposals(file, 8)[:5]
    assert all_proposals(file, 5, seed=1) != all_proposals(file, 5)
    with pytest.raises(ConfigError, match="needs a number of trials"):
        all_proposals(file)
    few = read(write(tmp_path, method="random"))
    assert len({proposal.key for proposal in all_proposals(few, 4)}) == 4
    with pytest.raises(ConfigError, match="only about 4 combinations"):
        all_proposals(few, 5)


def test_run_cap(tmp_path: Path) -> None:
    assert len(all_proposals(read(write(tmp_path, run_cap=3)))) == 3
    assert len(all_proposals(read(write(tmp_path, run_cap=3, method="random")))) == 3


SPACE = {
    "lr": LogUniformValues(min=1e-4, max=1.0, distribution="log_uniform_values"),
    "width": QUniform(min=0.5, max=2.0, q=0.5, distribution="q_uniform"),
    "method": Categorical(values=["fixed_sg", "psg"]),
}


def searched(url: str, trials: int, restart_at: int | None = None) -> Iterator[dict[str, Any]]:
    """A search with its optimum at lr = 0.01, by one runner that may be restarted."""
    study = Study(url, "search", ACCURACY, build_pruner(None, None, 1), seed=3)
    study.fill([Proposal(str(index), None) for index in range(trials)], {})
    for trial in study.trials():
        if trial.number == restart_at:
            study = Study(url, "search", ACCURACY, build_pruner(None, None, 1), seed=3)
        assert study.take(trial, "here", "this machine")
        values = study.propose(trial.number, SPACE)
        assert values == study.propose(trial.number, SPACE)  # proposed again after a kill
        study.finish(trial.number, [-((values["lr"] - 0.01) ** 2)])
        yield values


def test_a_search_repeats_also_when_it_is_restarted(tmp_path: Path) -> None:
    first = list(searched("sqlite://", 14))
    assert first == list(searched(f"sqlite:///{tmp_path / 'two.db'}", 14, restart_at=12))
    assert len({str(values) for values in first}) == 14
    assert preview([ACCURACY], SPACE, 3, [Proposal(str(index), None) for index in range(5)]) == first[:5]
    assert {values["method"] for values in first} == {"fixed_sg", "psg"}
    assert {values["width"] for values in first} <= {0.5, 1.0, 1.5, 2.0}


def test_a_waiting_trial_is_taken_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    one, other = (Study(url, "shared", ACCURACY, build_pruner(None, None, 1), seed=0) for _ in range(2))
    listed = [Proposal("a", {"seed": 0}), Proposal("b", {"seed": 1})]
    assert one.fill(listed, {"method": "grid"}) == other.fill(listed, {"method": "grid"}) == 2
    waiting = one.trials()[0]
    assert other.take(waiting, "there", "that machine")
    assert not one.take(waiting, "here", "this machine")
    assert one.trials()[0].user_attrs["folder"] == "there"


def test_two_runners_may_finish_a_trial_alike(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    one, other = (Study(url, "shared", ACCURACY, build_pruner(None, None, 1), seed=0) for _ in range(2))
    one.fill([Proposal("a", {"seed": 0})], {})
    assert one.take(one.trials()[0], "here", "this machine")
    one.finish(0, [0.5])
    other.finish(0, [0.5])
    assert other.trial(0).values == [0.5]
    with pytest.raises(UpdateFinishedTrialError):
        other.finish(0, [0.6])
    with pytest.raises(UpdateFinishedTrialError):
        other.prune(0, 0.5)


def test_two_runners_may_record_the_epochs_and_the_end_of_a_trial_alike(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    one, other = (Study(url, "shared", ACCURACY, build_pruner(None, None, 1), seed=0) for _ in range(2))
    one.fill([Proposal("a", {"seed": 0})], {})
    assert one.take(one.trials()[0], "here", "this machine")
    for study in (one, other):
        study.report(0, 1, 0.5)
        study.prune(0, 0.5)
    for epoch, value in ((1, 0.6), (2, 0.5)):
        with pytest.raises(UpdateFinishedTrialError):
            other.report(0, epoch, value)
    with pytest.raises(UpdateFinishedTrialError):
        other.prune(0, 0.6)


def test_a_trial_whose_taker_was_killed_on_the_spot(monkeypatch: pytest.MonkeyPatch) -> None:
    study = Study("sqlite://", "s", ACCURACY, build_pruner(None, None, 1), seed=0)
    study.fill([Proposal("a", {"seed": 0})], {})
    study.storage.set_trial_state_values(study.trials()[0]._trial_id, state=TrialState.RUNNING)
    assert not study.take(study.trials()[0], "here", "this machine")  # it may still be about to write its name
    monkeypatch.setattr("gradspike.tools.sweep.study.SECONDS_TO_SIGN", -1)
    assert study.take(study.trials()[0], "here", "this machine")


def test_a_sweep_may_grow_but_not_change(tmp_path: Path) -> None:
    folder, study = SweepFolder(tmp_path / "s"), Study("sqlite://", "s", ACCURACY, build_pruner(None, None, 1), seed=0)
    options = SweepArguments()

    def start(typed: list[str] | None = None, **changes: Any) -> int:
        file = read(write(tmp_path, **changes))
        words = sweep_words.build(file, typed or [])
        listed = proposals(file, words, None, 0)
        now = definition(file, words, options)
        check_same(study, folder, file, now, listed)
        return study.fill(listed, now)

    methods = {"values": ["fixed_sg", "psg"]}
    assert start() == 4
    assert start(["data_dir=/elsewhere"]) == 4
    assert start(parameters={"seed": {"values": [0, 1, 2]}, "method": methods}) == 6
    with pytest.raises(ConfigError, match=r"contains another sweep:\n  parameters.seed: was .*0, 1, 2.*, is .*0, 1]"):
        start()
    with pytest.raises(ConfigError, match=r"every trial: optimizer\.lr: was not set, is optimizer\.lr=0\.2"):
        start(["optimizer.lr=0.2"], parameters={"seed": {"values": [0, 1, 2]}, "method": methods})


def test_of_trials_that_two_machines_add_at_once_the_first_counts(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    one, other = (Study(url, "shared", ACCURACY, build_pruner(None, None, 1), seed=0) for _ in range(2))
    other.trials = list  # type: ignore[method-assign]  # it has looked before the first one wrote
    one.fill([Proposal("a", {"seed": 0})], {})
    other.fill([Proposal("a", {"seed": 0})], {})
    assert [trial.number for trial in one.trials()] == [0]


@pytest.mark.parametrize("pruner", ["median", "hyperband"])
def test_a_pruner_ends_what_falls_behind(pruner: str) -> None:
    study = Study("sqlite://", "p", ACCURACY, build_pruner(pruner, None, 9), seed=0)
    study.fill([Proposal(str(index), {"seed": index}) for index in range(9)], {})
    for trial in study.trials():
        assert study.take(trial, "here", "this machine")
        good = trial.number < 7
        stopped = [study.report(trial.number, epoch, 0.9 if good else 0.1) for epoch in range(1, 10)]
        if not good:
            assert any(stopped)
            study.prune(trial.number, study.last_reported(trial.number))
        else:
            study.finish(trial.number, [0.9])
    assert [trial.state.name for trial in study.trials()] == ["COMPLETE"] * 7 + ["PRUNED"] * 2


def test_a_storage_that_is_not_there() -> None:
    with pytest.raises(UserError, match=r"postgresql://me:\*\*\*@nowhere/x: cannot be used"):
        Study("postgresql://me:secret@nowhere/x", "s", ACCURACY, build_pruner(None, None, 1), seed=0)
    assert hidden("sqlite:///study.db") == "sqlite:///study.db"
