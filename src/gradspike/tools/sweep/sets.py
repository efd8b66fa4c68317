"""Sets of trials that differ only in the seed and count as one: their objective is the mean over the seeds.

The study holds one trial for each seed, so that each is taken, resumed and retried on its own. Searches and pruners see
the sets instead: a study in memory with one trial for each set, built from the others whenever it is asked.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

SET, SEED = "set", "seed"
"""User attributes of a trial: the key of its set, and its seed."""

Goal = Literal["maximize", "minimize"]
Suggest = Callable[[Trial], dict[str, Any]]


def set_of(trial: FrozenTrial) -> str | None:
    """The key of a trial's set; None if it counts by itself."""
    return trial.user_attrs.get(SET)


def grouped(trials: Iterable[FrozenTrial]) -> dict[str, list[FrozenTrial]]:
    """The trials of each set by its key, in the order of their numbers; a trial without a set is one of its own."""
    found: dict[str, list[FrozenTrial]] = {}
    for trial in sorted(trials, key=lambda one: one.number):
        found.setdefault(set_of(trial) or f"trial {trial.number}", []).append(trial)
    return found


def state_of(members: Sequence[FrozenTrial]) -> TrialState:
    """A set is complete if all its trials are, pruned if one is, and waiting as long as none was taken."""
    states = {member.state for member in members}
    if TrialState.PRUNED in states:
        return TrialState.PRUNED
    return next(iter(states)) if len(states) == 1 else TrialState.RUNNING


def mean_values(members: Sequence[FrozenTrial]) -> list[float] | None:
    """The mean of each objective over the seeds; None before all are known."""
    values = [member.values for member in members]
    if not all(values):
        return None
    return [statistics.fmean(one) for one in zip(*values, strict=True)]


def mean_progress(members: Sequence[FrozenTrial]) -> dict[int, float]:
    """The mean metric after each epoch that all seeds have finished."""
    shared = set.intersection(*(set(member.intermediate_values) for member in members))
    return {epoch: statistics.fmean(one.intermediate_values[epoch] for one in members) for epoch in sorted(shared)}


def proposed(
    trials: Sequence[FrozenTrial], number: int, directions: Sequence[Goal], sampler: BaseSampler, suggest: Suggest
) -> tuple[dict[str, Any], FrozenTrial]:
    """The values for the set of trial `number`, from the results of the others, and the trial that has them."""
    key = next(set_of(trial) for trial in trials if trial.number == number)
    study = optuna.create_study(directions=directions, sampler=sampler)
    others = [members for name, members in grouped(trials).items() if name != key]
    study.add_trials([_as_one(members) for members in others if any(member.params for member in members)])
    asked = study.ask()
    values = suggest(asked)
    return values, study.get_trials(deepcopy=True)[asked.number]


def unwanted(
    trials: Sequence[FrozenTrial], number: int, direction: Goal, pruner: BasePruner
) -> tuple[bool, dict[str, Any]]:
    """Whether the pruner stops the set of trial `number`, and what the pruner wants to remember of it."""
    sets = grouped(trials)
    key = next(set_of(trial) for trial in trials if trial.number == number) or ""
    if state_of(sets[key]) == TrialState.PRUNED:
        return True, {}  # another runner has pruned it
    if not mean_progress(sets[key]):
        return False, {}
    study = optuna.create_study(direction=direction, pruner=pruner, study_name="sets")
    started = {name: members for name, members in sets.items() if state_of(members) != TrialState.WAITING}
    study.add_trials([_as_one(members) for members in started.values()])
    own = study.get_trials(deepcopy=True)[list(started).index(key)]
    stops = pruner.prune(study, own)
    return stops, study.get_trials(deepcopy=False)[own.number].system_attrs


def _as_one(members: Sequence[FrozenTrial]) -> FrozenTrial:
    """A set as one trial. Its parameters are those of the trial that proposed them; the pruner's notes are all."""
    state, values, progress = state_of(members), mean_values(members), mean_progress(members)
    if state == TrialState.PRUNED and values is None and progress:
        values = [progress[max(progress)]]
    if state == TrialState.COMPLETE and values is None:
        state = TrialState.RUNNING
    first = next((one for one in members if one.params), members[0])
    return create_trial(
        state=state,
        values=values if state.is_finished() else None,
        params=first.params,
        distributions=first.distributions,
        intermediate_values=progress,
        system_attrs={key: value for member in members for key, value in member.system_attrs.items()},
    )
