"""Which trials a runner takes: of those that wait, and of those that a runner left when it died."""

from __future__ import annotations

import platform
from collections.abc import Iterator

from optuna.trial import FrozenTrial, TrialState

from gradspike.tools.sweep.folder import Record
from gradspike.tools.sweep.running import Active, Orphan, Running
from gradspike.tools.sweep.settling import finished
from gradspike.tools.sweep.study import is_unsigned
from gradspike.tools.sweep.trial import outcome
from gradspike.tools.sweep.workload import Workload


def in_order(work: Workload) -> Iterator[FrozenTrial]:
    """Trials that this runner may take: interrupted ones first, then waiting ones."""
    for trial in work.trials:
        if trial.state != TrialState.RUNNING or work.has(trial.number):
            continue
        if trial.user_attrs.get("folder") == work.folder.id or is_unsigned(trial):
            yield trial
    for trial in work.trials:
        if trial.state == TrialState.WAITING:
            yield trial


def take(work: Workload, trial: FrozenTrial) -> Record | None:
    """Take a trial. Returns the record to start it with, or None if it need not start."""
    number = trial.number
    record = work.folder.record(number)
    if trial.state == TrialState.WAITING or is_unsigned(trial):
        if work.study.waits_for_values(trial):
            return None
        if not work.study.take(trial, work.folder.id, f"{platform.node()}:{work.folder.path}"):
            return None
    elif work.study.trial(number).state != TrialState.RUNNING:
        return None  # another runner settled it in the meantime
    elif record is not None and (_is_of_another(work, record) or _adopted(work, record)):
        return None
    if trial.user_attrs.get("state") in ("failed", "interrupted"):
        work.study.note(number, state="tried again")
    if record is not None and record.attempts:
        known = outcome(work.folder, record, work.plan.metrics, None)
        if finished(work, record, known):
            return None
        record = known
    if record is None:
        values = trial.user_attrs.get("values") or work.study.propose(number, work.plan.swept)
        record = Record(
            number=number, state="queued", parameters=values, overrides=work.plan.words.of(values), runner=work.name
        )
    return work.folder.write(record.model_copy(update={"state": "queued", "runner": work.name, "gpus": ()}))


def _is_of_another(work: Workload, record: Record) -> bool:
    return record.runner != work.name and work.folder.lives(record.runner)


def _adopted(work: Workload, record: Record) -> bool:
    """Watch a trial that still trains after its runner died. Returns whether it does."""
    job = work.cluster.find(record) if work.cluster is not None else None
    running: Running = job if job is not None else Orphan(work.folder, record)
    if not running.alive():
        return False
    record = work.folder.write(record.model_copy(update={"runner": work.name}))
    work.tries[record.number] += 1
    work.active[record.number] = Active(record, running, work.plan.epochs)
    work.table.tell(record, "still running from an earlier start")
    return True


def elsewhere(work: Workload) -> list[FrozenTrial]:
    """Running trials of another folder, or of another live runner of this one."""
    found = []
    for trial in work.study.trials():
        if trial.state != TrialState.RUNNING or trial.number in work.given_up:
            continue
        own = trial.user_attrs.get("folder") == work.folder.id
        record = work.folder.record(trial.number) if own else None
        if record is None or work.folder.lives(record.runner):
            found.append(trial)
    return found
