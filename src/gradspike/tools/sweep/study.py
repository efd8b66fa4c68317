"""The Optuna study of a sweep: its trials, which folder runs which, and their results.

All trials are in the study from the start, waiting. Taking one is a single atomic change of state in the storage, so
runners on several machines that share a storage never take the same one. A trial stays `running` until it is complete
or pruned, even if it is interrupted or fails in between. The trial stores the id of the sweep folder that took it and
can resume it.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import DuplicatedStudyError, UpdateFinishedTrialError
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import TPESampler
from optuna.storages import get_storage
from optuna.trial import FrozenTrial, TrialState, create_trial

from gradspike.errors import UserError, first_line
from gradspike.json_text import to_json
from gradspike.tools.sweep.file import EarlyTerminate, Metric
from gradspike.tools.sweep.parameters import Parameter
from gradspike.tools.sweep.proposals import Proposal
from gradspike.tools.sweep.sets import SEED, SET, proposed, set_of, unwanted
from gradspike.tools.sweep.storage import connect, hidden

# A runner signs a trial milliseconds after taking it. If a trial stays unsigned longer, its runner was killed.
SECONDS_TO_SIGN = 60
STARTUP_TRIALS = 10
TRIALS_PER_COMMIT = 100
"""About a second's work, for which other runners wait."""


class Study:
    """A study by name in a storage (see `storage.connect`). Raises UserError if the storage cannot be used."""

    def __init__(
        self,
        place: str | Path,
        name: str,
        metric: Metric,
        pruner: BasePruner,
        seed: int,
        second: Metric | None = None,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._directions = [one.goal for one in (metric, second) if one is not None]
        try:
            self.storage = connect(place)
            self._cached = get_storage(self.storage)
            try:
                self._study = optuna.create_study(
                    storage=self._cached, study_name=name, directions=self._directions, pruner=pruner
                )
            except DuplicatedStudyError:
                self._study = optuna.load_study(storage=self._cached, study_name=name, pruner=pruner)
        except UserError:
            raise
        except Exception as error:
            # Every database driver raises its own errors for an unreachable server or a file of another format.
            reason = first_line(error)
            raise UserError(f"storage={hidden(place)}: cannot be used: {reason}") from error
        self.name = name
        self.seed = seed

    def definition(self) -> dict[str, Any] | None:
        """The definition of the sweep when its trials were added, or None for a new study."""
        found = self._study.user_attrs.get("sweep")
        return None if found is None else dict(json.loads(found))

    def fill(self, listed: Sequence[Proposal], definition: dict[str, Any]) -> int:
        """Add missing trials. Returns the new number of trials."""
        there = {trial.user_attrs["key"] for trial in self.trials()}
        new = [
            create_trial(state=TrialState.WAITING, user_attrs=_attributes(proposal))
            for proposal in listed
            if proposal.key not in there
        ]
        for start in range(0, len(new), TRIALS_PER_COMMIT):
            with self.storage.one_commit():
                self._study.add_trials(new[start : start + TRIALS_PER_COMMIT])
        self._study.set_user_attr("sweep", to_json(definition))
        return len(there) + len(new)

    def trials(self) -> list[FrozenTrial]:
        """All trials, oldest first. If two machines added the same one at the same moment, only the first counts."""
        found: dict[str, FrozenTrial] = {}
        for trial in self._study.get_trials(deepcopy=False):
            if "key" in trial.user_attrs:
                found.setdefault(trial.user_attrs["key"], trial)
        return list(found.values())

    def trial(self, number: int) -> FrozenTrial:
        """The current state of one trial in the storage."""
        return self.storage.get_trial(self._id(number))

    def take(self, trial: FrozenTrial, folder: str, place: str) -> bool:
        """Take a waiting trial, or one whose runner was killed before signing. Returns False if another was faster.

        `folder` is the id of this sweep folder, `place` its host and path.
        """
        if trial.state == TrialState.WAITING:
            if not self.storage.set_trial_state_values(trial._trial_id, state=TrialState.RUNNING):
                return False
        elif not is_unsigned(trial):
            return False
        self.storage.set_trial_user_attr(trial._trial_id, "place", place)
        self.storage.set_trial_user_attr(trial._trial_id, "folder", folder)
        return True

    def propose(self, number: int, swept: dict[str, Parameter]) -> dict[str, Any]:
        """The parameter values of a search's trial, chosen from the results so far.

        The seed depends on the trial's number, so a single worker always makes the same proposals, interrupted or
        not. All trials of a set get the values that its first one gets.
        """
        if set_of(self.trial(number)) is not None:
            return self._propose_set(number, swept)
        seed = zlib.crc32(f"{self.seed} {number}".encode())
        sampler = TPESampler(seed=seed, n_startup_trials=STARTUP_TRIALS, multivariate=True, constant_liar=True)
        # Load it again, because a study object caches the trials of its last proposal.
        study = optuna.load_study(
            storage=self._cached, study_name=self.name, sampler=sampler, pruner=self._study.pruner
        )
        trial = optuna.trial.Trial(study, self._id(number))
        return {name: parameter.suggest(trial, name) for name, parameter in swept.items()}

    def _propose_set(self, number: int, swept: dict[str, Parameter]) -> dict[str, Any]:
        if known := self.trial(number).user_attrs.get("values"):
            return dict(known)
        trials, members = self.trials(), self.members(number)
        seed = zlib.crc32(f"{self.seed} {members[0].number}".encode())
        sampler = TPESampler(seed=seed, n_startup_trials=STARTUP_TRIALS, multivariate=True, constant_liar=True)
        searched = {name: parameter for name, parameter in swept.items() if name != SEED}
        values, made = proposed(
            trials,
            number,
            self._directions,
            sampler,
            lambda trial: {name: parameter.suggest(trial, name) for name, parameter in searched.items()},
        )
        for name, distribution in made.distributions.items():
            internal = distribution.to_internal_repr(made.params[name])
            self.storage.set_trial_param(self._id(number), name, internal, distribution)
        by_member = {}
        for member in members:
            whole = {**values, SEED: member.user_attrs[SEED]}
            by_member[member.number] = {name: whole[name] for name in swept}
            self.note(member.number, values=by_member[member.number])
        return by_member[number]

    def waits_for_values(self, trial: FrozenTrial) -> bool:
        """Whether a trial of a set gets its values from the first trial of the set, which does not have them yet.

        Otherwise two machines could propose different values for one set.
        """
        if set_of(trial) is None or self.trial(trial.number).user_attrs.get("values"):
            return False
        return self.members(trial.number)[0].number != trial.number

    def members(self, number: int) -> list[FrozenTrial]:
        """All trials of a trial's set, this one included."""
        key = set_of(self.trial(number))
        every = self.trials()
        return [one for one in every if one.number == number or (key is not None and set_of(one) == key)]

    def note(self, number: int, **values: Any) -> None:
        """Set attributes of a running trial."""
        for key, value in values.items():
            self.storage.set_trial_user_attr(self._id(number), key, value)

    def report(self, number: int, epoch: int, value: float) -> bool:
        """Record the metric after `epoch` epochs. Returns whether the pruner stops the trial, or its set.

        Nothing is left to do if another runner recorded it and ended the trial.
        """
        try:
            self.storage.set_trial_intermediate_value(self._id(number), epoch, value)
        except UpdateFinishedTrialError:
            if self.trial(number).intermediate_values.get(epoch) != value:
                raise
            return False
        if set_of(self.trial(number)) is not None:
            return self._unwanted_set(number)
        return bool(self._study.pruner.prune(self._study, self.trial(number)))

    def _unwanted_set(self, number: int) -> bool:
        if isinstance(self._study.pruner, NopPruner):
            return False
        stops, notes = unwanted(self.trials(), number, self._directions[0], self._study.pruner)
        for key, value in notes.items():
            self.storage.set_trial_system_attr(self._id(number), key, value)
        return stops

    def prune_waiting(self, number: int) -> None:
        """Mark the trials of a set pruned that have not started."""
        for member in self.members(number):
            if member.state == TrialState.WAITING:
                self.storage.set_trial_state_values(member._trial_id, state=TrialState.PRUNED)

    def finish(self, number: int, values: Sequence[float]) -> None:
        """Mark a trial complete, with the value of each objective. Nothing is left to do if another runner did so."""
        self._end(number, TrialState.COMPLETE, list(values))

    def last_reported(self, number: int) -> float | None:
        """The latest reported metric."""
        reported = self.trial(number).intermediate_values
        return reported[max(reported)] if reported else None

    def prune(self, number: int, value: float | None) -> None:
        """Mark a trial pruned. Nothing is left to do if another runner did so."""
        self._end(number, TrialState.PRUNED, None if value is None else [value])

    def _end(self, number: int, state: TrialState, values: list[float] | None) -> None:
        try:
            self.storage.set_trial_state_values(self._id(number), state=state, values=values)
        except UpdateFinishedTrialError:
            known = self.trial(number)
            if (known.state, known.values) != (state, values):
                raise

    def close(self) -> None:
        """Release the connection."""
        self.storage.remove_session()

    def _id(self, number: int) -> int:
        return self._cached.get_trial_id_from_study_id_trial_number(self._study._study_id, number)


def is_unsigned(trial: FrozenTrial) -> bool:
    """Whether the runner that took a trial was killed before signing."""
    start = trial.datetime_start
    late = start is not None and datetime.now() - start > timedelta(seconds=SECONDS_TO_SIGN)
    return trial.state == TrialState.RUNNING and "folder" not in trial.user_attrs and late


def build_pruner(name: str | None, early: EarlyTerminate | None, epochs: int) -> BasePruner:
    """The named pruner, else that of the sweep file's `early_terminate`, else none."""
    if name == "median":
        return MedianPruner(n_startup_trials=5, n_warmup_steps=1)
    if name == "hyperband":
        return HyperbandPruner(min_resource=1, max_resource=epochs, reduction_factor=3)
    if name is None and early is not None:
        return SuccessiveHalvingPruner(min_resource=early.min_iter, reduction_factor=early.eta)
    return NopPruner()


def _attributes(proposal: Proposal) -> dict[str, Any]:
    own = {"key": proposal.key, "values": proposal.values}
    return own if proposal.set is None else {**own, SET: proposal.set, SEED: proposal.seed}


def preview(
    metrics: Sequence[Metric], swept: dict[str, Parameter], seed: int, listed: Sequence[Proposal]
) -> list[dict[str, Any]]:
    """The values of the first trials of a search, before there are results."""
    study = Study("sqlite://", "preview", metrics[0], NopPruner(), seed, *metrics[1:])
    study.fill(listed, {})
    return [study.trial(n).user_attrs.get("values") or study.propose(n, swept) for n in range(len(listed))]
