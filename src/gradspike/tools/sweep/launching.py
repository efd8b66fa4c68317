"""Starts trials: as processes of this machine, or as jobs of a cluster."""

from __future__ import annotations

from gradspike.cores import cores
from gradspike.errors import ConfigError
from gradspike.tools.sweep.folder import Record
from gradspike.tools.sweep.running import Active, Process
from gradspike.tools.sweep.trial import start
from gradspike.tools.sweep.words import check
from gradspike.tools.sweep.workload import Workload


def launch(work: Workload, records: list[Record]) -> None:
    """Start trials whose records are written."""
    ready = []
    for record in records:
        try:
            config = check(record.overrides, work.plan.words)
        except ConfigError as error:
            _refuse(work, record, str(error))
            continue
        ready.append((record, config.trainer.max_epochs, config.trainer.devices))
    if work.cluster is not None and ready:
        jobs = work.cluster.submit([record.number for record, _, _ in ready])
        for (record, epochs, _), job in zip(ready, jobs, strict=True):
            work.tries[record.number] += 1
            work.active[record.number] = Active(record, job, epochs)
            work.table.tell(record, f"submitted as job {job.name}")
        return
    for record, epochs, devices in ready:
        lock = work.folder.lock_trial(record.number)
        if lock is None:  # processes of a killed attempt have not ended yet
            work.again[record.number] = record
            continue
        gpus = tuple(work.free_gpus()[:devices])
        threads = max(1, cores() // (work.plan.workers * devices))
        record = record.model_copy(update={"gpus": gpus})
        before = record
        record, process = start(work.folder, work.plan.words, record, lock, threads)
        work.tries[record.number] += 1
        work.active[record.number] = Active(record, Process(process), epochs)
        work.table.tell(record, _how(before, record))


def _refuse(work: Workload, record: Record, reason: str) -> None:
    """Give up a trial whose configuration is invalid."""
    work.folder.write(record.model_copy(update={"state": "failed", "reason": reason}))
    work.study.note(record.number, state="failed")
    work.given_up.add(record.number)
    work.table.tell(record, f"failed: {reason}")


def _how(before: Record, started: Record) -> str:
    """A phrase for how a trial started."""
    if started.run is not None:
        return f"resumes {started.run}"
    return "started" if not before.attempts else f"started from scratch: {before.reason or 'no saved state'}"
