"""Watches a running trial: its progress, whether it is worth going on, and its end."""

from __future__ import annotations

import time

from gradspike.tools.sweep.progress import Progress
from gradspike.tools.sweep.running import Active
from gradspike.tools.sweep.settling import settle
from gradspike.tools.sweep.trial import find_run, place_of
from gradspike.tools.sweep.workload import Workload

SECONDS_TO_PRUNE = 300
"""After so long, a trial that was asked to stop is killed."""


def look(work: Workload, number: int, stopping: bool) -> None:
    """Update the progress of a trial, and finish it if it has ended. stopping: the runner was told to stop."""
    active = work.active[number]
    alive = active.running.alive()
    if active.progress is None:
        # A cluster job writes its record itself.
        record = work.folder.record(number) if active.record.state == "queued" else active.record
        run = find_run(work.folder, record) if record is not None else None
        if record is not None and run is not None:
            active.record = record.model_copy(update=place_of(work.folder, run))
            if alive:
                work.folder.write(active.record)
            active.progress = Progress(run.path, work.plan.metrics[0])
    if active.progress is not None:
        for epoch, value in active.progress.update():
            unwanted = work.study.report(number, epoch, value)
            if unwanted and alive and epoch < active.epochs and active.stopping_since is None:
                _prune_set(work, active)
    if not alive:
        del work.active[number]
        settle(work, active, stopping)
    elif active.stopping_since is not None and time.monotonic() - active.stopping_since > SECONDS_TO_PRUNE:
        active.running.stop(hard=True)


def _prune_set(work: Workload, active: Active) -> None:
    """Prune a trial, and all others of its set that have not ended; the other runners prune theirs."""
    _prune(work, active)
    for member in work.study.members(active.record.number):
        other = work.active.get(member.number)
        if other is not None and other.stopping_since is None:
            _prune(work, other)
    work.study.prune_waiting(active.record.number)


def _prune(work: Workload, active: Active) -> None:
    """Ask a trial to stop because others are better. Record this first, in case this runner is killed."""
    active.record = work.folder.write(active.record.model_copy(update={"state": "stopping"}))
    active.stopping_since = time.monotonic()
    active.running.stop()
