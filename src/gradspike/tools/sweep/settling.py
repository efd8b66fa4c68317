"""What becomes of a trial that has ended: recorded, tried again, or given up."""

from __future__ import annotations

from gradspike.runs.folder import RunFolder
from gradspike.tools.sweep.folder import Record
from gradspike.tools.sweep.progress import Progress
from gradspike.tools.sweep.running import Active
from gradspike.tools.sweep.trial import find_run, has_saved, outcome
from gradspike.tools.sweep.workload import Workload

CONFIG_ERROR = 2
"""The exit code of a trial whose configuration is refused; starting it again changes nothing."""


def settle(work: Workload, active: Active, stopping: bool) -> None:
    """Record an ended trial, retry it, or give it up. stopping: the runner was told to, and retries nothing."""
    number = active.record.number
    before = work.folder.record(number) or active.record
    after = outcome(work.folder, before, work.plan.metrics, active.running.code())
    if finished(work, before, after):
        return
    if stopping and not (after.state == "failed" and active.running.code() == CONFIG_ERROR):
        after = after.model_copy(update={"state": "interrupted"})
    elif active.running.cancelled():
        after = after.model_copy(update={"state": "interrupted", "reason": "its job was cancelled"})
        work.given_up.add(number)
    elif active.running.detached and after.state == "interrupted" and has_saved(work.folder, after):
        # The job's time is up, or it was preempted, and the cluster did not queue it again: not a failure.
        work.tries[number] -= 1
        work.again[number] = work.folder.write(after.model_copy(update={"state": "queued"}))
        work.table.tell(after, "its job ended with the state saved; submitted again")
        return
    elif work.tries[number] <= work.plan.retries and active.running.code() != CONFIG_ERROR:
        work.again[number] = work.folder.write(after.model_copy(update={"state": "queued"}))
        work.table.tell(after, f"retried ({work.tries[number]} of {work.plan.retries}): {after.reason}")
        return
    else:
        after = after.model_copy(update={"state": "failed"})
        work.given_up.add(number)
    work.folder.write(after)
    work.study.note(number, state=after.state)
    work.table.tell(after, f"{after.state}: {after.reason}")


def finished(work: Workload, before: Record, after: Record) -> bool:
    """Record a trial that is finished or pruned. Returns whether it is."""
    if after.state == "finished":
        assert after.value is not None
        run = find_run(work.folder, after)
        assert run is not None
        _report_all(work, after.number, run)
        # The record first: if this runner is killed in between, the next one finishes the trial from it.
        work.folder.write(after)
        work.study.finish(after.number, after.values)
    elif before.state in ("stopping", "pruned"):
        value = work.study.last_reported(after.number)
        update = {"state": "pruned", "value": value, "reason": "stopped by the pruner"}
        after = work.folder.write(after.model_copy(update=update))
        work.study.prune(after.number, value)
    else:
        return False
    work.table.tell(after, after.state)
    return True


def _report_all(work: Workload, number: int, run: RunFolder) -> None:
    """Report epochs that ended while no runner was watching."""
    known = work.study.trial(number).intermediate_values
    for epoch, value in Progress(run.path, work.plan.metrics[0]).update():
        if epoch not in known:
            work.study.report(number, epoch, value)
