"""The loop that starts, watches and finishes trials until none is left. It may be killed at any moment.

The state of each trial is in the study and in its record, never only in this process.
"""

from __future__ import annotations

import platform
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from gradspike.cores import cores
from gradspike.errors import ConfigError
from gradspike.runs.folder import RunFolder
from gradspike.tools.sweep.file import Metric
from gradspike.tools.sweep.folder import Record, SweepFolder
from gradspike.tools.sweep.parameters import Parameter
from gradspike.tools.sweep.progress import Progress
from gradspike.tools.sweep.running import Active, Orphan, Process, Running
from gradspike.tools.sweep.slurm import Cluster
from gradspike.tools.sweep.study import Study, is_unsigned
from gradspike.tools.sweep.table import Table
from gradspike.tools.sweep.trial import find_run, has_saved, outcome, place_of, start
from gradspike.tools.sweep.words import Words, check

POLL_SECONDS = 0.3
LOOK_SECONDS = 2.0
SECONDS_TO_PRUNE = 300
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
CONFIG_ERROR = 2


@dataclass
class Plan:
    """What to run."""

    words: Words
    metrics: tuple[Metric, ...]
    """One or two objectives; pruners and the live table use the first."""
    swept: dict[str, Parameter]
    workers: int
    gpus: list[str]
    gpus_needed: int
    """The largest number of GPUs of one trial."""
    retries: int
    epochs: int
    """The largest number of epochs of one trial; used for trials of an earlier start."""


class Runner:
    """A runner. Several may share a folder or a storage."""

    def __init__(self, folder: SweepFolder, study: Study, plan: Plan, cluster: Cluster | None, table: Table) -> None:
        self.folder = folder
        self.study = study
        self.plan = plan
        self.cluster = cluster
        self.table = table
        self.active: dict[int, Active] = {}
        self.tries: Counter[int] = Counter()
        self.given_up: set[int] = set()
        self.again: dict[int, Record] = {}
        self.signals: list[int] = []
        self.passed_on = 0
        self.name = ""
        self._looked = 0.0
        self._in_vain = False
        self._trials: list[FrozenTrial] = []
        self._known = True
        """Whether the values of all trials are known, so that none waits for results of others."""

    def run(self) -> int:
        """Run until no trial is left or a signal arrives. Returns the exit code."""
        self.name, alive = self.folder.register()
        try:
            with self._listening(), self.table:
                while not self._finished():
                    time.sleep(POLL_SECONDS)
        finally:
            self.folder.unregister(self.name, alive)
        self.table.closing(self.folder, self.study.trials(), self._elsewhere(), self.signals)
        if self.signals:
            return 128 + self.signals[0]
        return 1 if self.given_up else 0

    def _finished(self) -> bool:
        """Do one iteration of the loop. Returns whether it was the last."""
        for number in list(self.active):
            self._look(number)
            if number not in self.active:
                self._looked = 0.0  # a worker is free
        if len(self.signals) > self.passed_on:
            self._pass_on()
        if not self.signals:
            self._take_more()
        self.table.show(self._trials, self.active, self.again, self.plan.workers)
        return not self.active and not self.again and (bool(self.signals) or self._in_vain)

    def _look(self, number: int) -> None:
        """Update the progress of a trial, and finish it if it has ended."""
        active = self.active[number]
        alive = active.running.alive()
        if active.progress is None:
            # A cluster job writes its record itself.
            record = self.folder.record(number) if active.record.state == "queued" else active.record
            run = find_run(self.folder, record) if record is not None else None
            if record is not None and run is not None:
                active.record = record.model_copy(update=place_of(self.folder, run))
                if alive:
                    self.folder.write(active.record)
                active.progress = Progress(run.path, self.plan.metrics[0])
        if active.progress is not None:
            for epoch, value in active.progress.update():
                unwanted = self.study.report(number, epoch, value)
                if unwanted and alive and epoch < active.epochs and active.stopping_since is None:
                    self._prune_set(active)
        if not alive:
            del self.active[number]
            self._settle(active)
        elif active.stopping_since is not None and time.monotonic() - active.stopping_since > SECONDS_TO_PRUNE:
            active.running.stop(hard=True)

    def _prune_set(self, active: Active) -> None:
        """Prune a trial, and all others of its set that have not ended; the other runners prune theirs."""
        self._prune(active)
        for member in self.study.members(active.record.number):
            other = self.active.get(member.number)
            if other is not None and other.stopping_since is None:
                self._prune(other)
        self.study.prune_waiting(active.record.number)

    def _prune(self, active: Active) -> None:
        """Ask a trial to stop because others are better. Record this first, in case this runner is killed."""
        active.record = self.folder.write(active.record.model_copy(update={"state": "stopping"}))
        active.stopping_since = time.monotonic()
        active.running.stop()

    def _settle(self, active: Active) -> None:
        """Record an ended trial, retry it, or give it up."""
        number = active.record.number
        before = self.folder.record(number) or active.record
        after = outcome(self.folder, before, self.plan.metrics, active.running.code())
        if self._done(before, after):
            return
        if self.signals and not (after.state == "failed" and active.running.code() == CONFIG_ERROR):
            after = after.model_copy(update={"state": "interrupted"})
        elif active.running.cancelled():
            after = after.model_copy(update={"state": "interrupted", "reason": "its job was cancelled"})
            self.given_up.add(number)
        elif active.running.detached and after.state == "interrupted" and has_saved(self.folder, after):
            # The job's time is up, or it was preempted, and the cluster did not queue it again: not a failure.
            self.tries[number] -= 1
            self.again[number] = self.folder.write(after.model_copy(update={"state": "queued"}))
            self.table.tell(after, "its job ended with the state saved; submitted again")
            return
        elif self.tries[number] <= self.plan.retries and active.running.code() != CONFIG_ERROR:
            self.again[number] = self.folder.write(after.model_copy(update={"state": "queued"}))
            self.table.tell(after, f"retried ({self.tries[number]} of {self.plan.retries}): {after.reason}")
            return
        else:
            after = after.model_copy(update={"state": "failed"})
            self.given_up.add(number)
        self.folder.write(after)
        self.study.note(number, state=after.state)
        self.table.tell(after, f"{after.state}: {after.reason}")

    def _done(self, before: Record, after: Record) -> bool:
        """Record a trial that is finished or pruned. Returns whether it is."""
        if after.state == "finished":
            assert after.value is not None
            run = find_run(self.folder, after)
            assert run is not None
            self._report_all(after.number, run)
            # The record first: if this runner is killed in between, the next one finishes the trial from it.
            self.folder.write(after)
            self.study.finish(after.number, after.values)
        elif before.state in ("stopping", "pruned"):
            value = self.study.last_reported(after.number)
            update = {"state": "pruned", "value": value, "reason": "stopped by the pruner"}
            after = self.folder.write(after.model_copy(update=update))
            self.study.prune(after.number, value)
        else:
            return False
        self.table.tell(after, after.state)
        return True

    def _report_all(self, number: int, run: RunFolder) -> None:
        """Report epochs that ended while no runner was watching."""
        known = self.study.trial(number).intermediate_values
        for epoch, value in Progress(run.path, self.plan.metrics[0]).update():
            if epoch not in known:
                self.study.report(number, epoch, value)

    def _pass_on(self) -> None:
        """Pass a signal on to all trials: the first lets them save, the second stops them, the third kills them."""
        self.passed_on = len(self.signals)
        left = [active for active in self.active.values() if not active.running.detached]
        for number in [number for number, active in self.active.items() if active.running.detached]:
            del self.active[number]
        self.again.clear()
        self.table.stopping(len(left), self.passed_on)
        for active in left:
            active.running.stop(hard=self.passed_on > 2)

    def _free(self) -> int:
        """The number of trials that may start now."""
        if self.cluster is not None and self._known:
            return len(self._trials)  # the cluster limits the array
        free = self.plan.workers - len(self.active)
        if self.plan.gpus:
            free = min(free, len(self._free_gpus()) // self.plan.gpus_needed)
        return max(0, free)

    def _free_gpus(self) -> list[str]:
        taken = {gpu for active in self.active.values() for gpu in active.record.gpus}
        return [gpu for gpu in self.plan.gpus if gpu not in taken]

    def _take_more(self) -> None:
        """Start trials to retry, then waiting ones."""
        for number in list(self.again):
            if self._free() and not self.folder.is_training(number):
                self._launch([self.again.pop(number)])
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        self._trials = self.study.trials()
        self._known = all(trial.user_attrs.get("values") for trial in self._trials)
        if not self._free():
            return
        self._in_vain = True
        taken: list[Record] = []
        with self.folder.locked("claim"):
            for trial in self._in_order():
                if len(taken) >= self._free():
                    break
                record = self._take(trial)
                if record is not None:
                    self._in_vain = False
                    taken.append(record)
                    if self.cluster is None:
                        self._launch([taken.pop()])
        self._launch(taken)
        if not self._in_vain:
            self._looked = 0.0  # the list of trials is outdated

    def _in_order(self) -> Iterator[FrozenTrial]:
        """Trials that this runner may take: interrupted ones first, then waiting ones."""
        for trial in self._trials:
            if trial.state != TrialState.RUNNING or self._has(trial.number):
                continue
            if trial.user_attrs.get("folder") == self.folder.id or is_unsigned(trial):
                yield trial
        for trial in self._trials:
            if trial.state == TrialState.WAITING:
                yield trial

    def _has(self, number: int) -> bool:
        return number in self.active or number in self.again or number in self.given_up

    def _take(self, trial: FrozenTrial) -> Record | None:
        """Take a trial. Returns the record to start it with, or None if it need not start."""
        number = trial.number
        record = self.folder.record(number)
        if trial.state == TrialState.WAITING or is_unsigned(trial):
            if self.study.waits_for_values(trial):
                return None
            if not self.study.take(trial, self.folder.id, f"{platform.node()}:{self.folder.path}"):
                return None
        elif self.study.trial(number).state != TrialState.RUNNING:
            return None  # another runner settled it in the meantime
        elif record is not None and (self._is_of_another(record) or self._adopted(record)):
            return None
        if trial.user_attrs.get("state") in ("failed", "interrupted"):
            self.study.note(number, state="tried again")
        if record is not None and record.attempts:
            known = outcome(self.folder, record, self.plan.metrics, None)
            if self._done(record, known):
                return None
            record = known
        if record is None:
            values = trial.user_attrs.get("values") or self.study.propose(number, self.plan.swept)
            record = Record(
                number=number, state="queued", parameters=values, overrides=self.plan.words.of(values), runner=self.name
            )
        return self.folder.write(record.model_copy(update={"state": "queued", "runner": self.name, "gpus": ()}))

    def _is_of_another(self, record: Record) -> bool:
        return record.runner != self.name and self.folder.lives(record.runner)

    def _adopted(self, record: Record) -> bool:
        """Watch a trial that still trains after its runner died. Returns whether it does."""
        job = self.cluster.find(record) if self.cluster is not None else None
        running: Running = job if job is not None else Orphan(self.folder, record)
        if not running.alive():
            return False
        record = self.folder.write(record.model_copy(update={"runner": self.name}))
        self.tries[record.number] += 1
        self.active[record.number] = Active(record, running, self.plan.epochs)
        self.table.tell(record, "still running from an earlier start")
        return True

    def _launch(self, records: list[Record]) -> None:
        """Start trials whose records are written."""
        ready = []
        for record in records:
            try:
                config = check(record.overrides, self.plan.words)
            except ConfigError as error:
                self._refuse(record, str(error))
                continue
            ready.append((record, config.trainer.max_epochs, config.trainer.devices))
        if self.cluster is not None and ready:
            jobs = self.cluster.submit([record.number for record, _, _ in ready])
            for (record, epochs, _), job in zip(ready, jobs, strict=True):
                self.tries[record.number] += 1
                self.active[record.number] = Active(record, job, epochs)
                self.table.tell(record, f"submitted as job {job.name}")
            return
        for record, epochs, devices in ready:
            lock = self.folder.lock_trial(record.number)
            if lock is None:  # processes of a killed attempt have not ended yet
                self.again[record.number] = record
                continue
            gpus = tuple(self._free_gpus()[:devices])
            threads = max(1, cores() // (self.plan.workers * devices))
            record = record.model_copy(update={"gpus": gpus})
            before = record
            record, process = start(self.folder, self.plan.words, record, lock, threads)
            self.tries[record.number] += 1
            self.active[record.number] = Active(record, Process(process), epochs)
            self.table.tell(record, _how(before, record))

    def _refuse(self, record: Record, reason: str) -> None:
        """Give up a trial whose configuration is invalid."""
        self.folder.write(record.model_copy(update={"state": "failed", "reason": reason}))
        self.study.note(record.number, state="failed")
        self.given_up.add(record.number)
        self.table.tell(record, f"failed: {reason}")

    def _elsewhere(self) -> list[FrozenTrial]:
        """Running trials of another folder, or of another live runner of this one."""
        found = []
        for trial in self.study.trials():
            if trial.state != TrialState.RUNNING or trial.number in self.given_up:
                continue
            record = self.folder.record(trial.number) if trial.user_attrs.get("folder") == self.folder.id else None
            if record is None or self.folder.lives(record.runner):
                found.append(trial)
        return found

    @contextmanager
    def _listening(self) -> Iterator[None]:
        def note(signum: int, frame: FrameType | None) -> None:
            self.signals.append(signum)

        before: dict[signal.Signals, Any] = {signum: signal.signal(signum, note) for signum in SIGNALS}
        try:
            yield
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)


def _how(before: Record, started: Record) -> str:
    """A phrase for how a trial started."""
    if started.run is not None:
        return f"resumes {started.run}"
    return "started" if not before.attempts else f"started from scratch: {before.reason or 'no saved state'}"
