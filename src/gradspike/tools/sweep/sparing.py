"""A storage that does not read waiting trials again and again, and does not wait for the disk at each new one."""

from __future__ import annotations

from collections.abc import Container, Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.orm import scoped_session, sessionmaker
from typing_extensions import override


class SparingStorage(RDBStorage):
    """Optuna keeps finished trials in memory and reads all others from the database at each look.

    In a sweep, all trials wait in the study from the start, and a waiting one changes only when it is taken. So of the
    waiting trials only the numbers and states are read. Otherwise a sweep of 10,000 trials would read 10,000 trials at
    each end of one.
    """

    @contextmanager
    def one_commit(self) -> Iterator[None]:
        """Commit once what is written in this context, or none of it after an error. Other runners wait meanwhile.

        Each commit waits for the disk, tens of milliseconds on a busy one.
        """
        before = self.scoped_session
        with self.engine.begin() as connection:
            self.scoped_session = scoped_session(sessionmaker(connection, join_transaction_mode="rollback_only"))
            try:
                yield
            finally:
                self.scoped_session = before

    @override
    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        """All trials after `trial_id_greater_than`, and those of `included_trial_ids`, which the caller already has and
        which may have changed."""
        if not included_trial_ids:
            return super()._get_trials(study_id, states, included_trial_ids, trial_id_greater_than)
        found = dict(self._states(study_id))
        wanted = {
            number
            for number, state in found.items()
            if (number > trial_id_greater_than or number in included_trial_ids)
            and not (state == TrialState.WAITING.name and number in included_trial_ids)
        }
        return super()._get_trials(study_id, states, wanted, max(found, default=0))

    def _states(self, study_id: int) -> list[tuple[int, Any]]:
        query = sqlalchemy.text("SELECT trial_id, state FROM trials WHERE study_id = :study")
        with self.engine.connect() as connection:
            return [(row[0], row[1]) for row in connection.execute(query, {"study": study_id})]
