"""Trials as jobs of a Slurm cluster, through submitit. `submitit-local` is the same path without a cluster."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradspike.errors import ConfigError, UserError, did_you_mean
from gradspike.runs.files import write_atomically
from gradspike.started import child_environment
from gradspike.tools.sweep.folder import Record, SweepFolder
from gradspike.tools.sweep.trial import start, stop_file
from gradspike.tools.sweep.words import Words

if TYPE_CHECKING:
    import subprocess

SECONDS_TO_SAVE = 90
DEFAULTS: dict[str, Any] = {"timeout_min": 24 * 60, "nodes": 1, "tasks_per_node": 1}
ALIVE = ("PENDING", "CONFIGURING", "RUNNING", "REQUEUED", "SUSPENDED", "COMPLETING", "PREEMPTED")


class TrialJob:
    """What runs on the cluster: one trial, from its start or from where it stopped.

    submitit pickles it, and calls `checkpoint` when Slurm announces (SIGUSR2) that the job's time is up or its place is
    wanted: the training saves and ends, and the job comes back to the queue.
    """

    def __init__(self, folder: Path, words: Words, number: int, processes: int) -> None:
        self.folder = folder
        self.words = words
        self.number = number
        self.processes = processes
        self.process: subprocess.Popen[bytes] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "process": None}

    def __call__(self) -> int | None:
        """Train; returns the exit code, or None where the trial is done or in other hands."""
        import submitit

        folder = SweepFolder(self.folder)
        record, lock = folder.record(self.number), folder.lock_trial(self.number)
        if record is None or lock is None or record.state not in ("queued", "running"):
            return None
        record = record.model_copy(update={"job": submitit.JobEnvironment().job_id})
        wish = stop_file(folder, self.number)
        _, self.process = start(folder, self.words, record, lock, max(1, _cores() // self.processes))
        while self.process.poll() is None:
            if wish.exists():
                wish.unlink(missing_ok=True)
                self.process.terminate()
            time.sleep(0.2)
        return self.process.returncode

    def checkpoint(self) -> Any:
        """Stop the training with its state saved, and ask for the job to be queued again."""
        import submitit

        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            deadline = time.monotonic() + SECONDS_TO_SAVE
            while self.process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.2)
        return submitit.helpers.DelayedSubmission(self)


class Job:
    """A submitted job as its runner sees it."""

    detached = True

    def __init__(self, job: Any, folder: SweepFolder, number: int) -> None:
        self._job = job
        self._folder = folder
        self._number = number
        self.name = str(job.job_id)

    def alive(self) -> bool:
        """Whether it is queued or under way."""
        return not self._job.done()

    def code(self) -> int | None:
        """What the training ended with, where the job has said so."""
        try:
            result = self._job.result() if self._job.paths.result_pickle.exists() else None
        except Exception:  # submitit hands over whatever the job raised
            return None
        return result if isinstance(result, int) else None

    def stop(self, hard: bool = False) -> None:
        """Leave the wish that it stop; `hard`: cancel it."""
        if hard:
            self._job.cancel()
        stop_file(self._folder, self._number).touch()


class Cluster:
    """Submits trials. Raises UserError where submitit or Slurm is not there."""

    def __init__(
        self,
        folder: SweepFolder,
        words: Words,
        local: bool,
        workers: int,
        gpus: int,
        processes: int,
        options: dict[str, str],
    ) -> None:
        try:
            import submitit
        except ModuleNotFoundError as error:
            raise UserError("executor=slurm needs the package submitit: pip install 'gradspike[slurm]'") from error
        self._folder = folder
        self._words = words
        self._processes = processes
        self._local = local
        try:
            executor = submitit.AutoExecutor(folder=folder.path / "jobs", cluster="local" if local else "slurm")
        except RuntimeError as error:
            raise UserError(f"executor=slurm: {error}") from error
        parameters = {**DEFAULTS, "name": folder.path.name, **({"gpus_per_node": gpus} if gpus else {})}
        if not local:
            parameters |= {"slurm_array_parallelism": workers, "slurm_signal_delay_s": SECONDS_TO_SAVE + 30}
        # The job imports this package, also where it is not installed but started from its folder.
        os.environ.update(child_environment(os.environ))
        executor.update_parameters(**{**parameters, **_own(options, submitit)})
        self._executor = executor

    def submit(self, numbers: Sequence[int]) -> list[Job]:
        """One job for each trial, as one array."""
        work = [TrialJob(self._folder.path, self._words, number, self._processes) for number in numbers]
        for number in numbers:
            stop_file(self._folder, number).unlink(missing_ok=True)
        if self._local:
            jobs = [self._executor.submit(job) for job in work]
        else:
            with self._executor.batch():
                jobs = [self._executor.submit(job) for job in work]
        for number, job in zip(numbers, jobs, strict=True):
            write_atomically(self._folder.trial(number) / "job", f"{job.job_id}\n")
        return [Job(job, self._folder, number) for number, job in zip(numbers, jobs, strict=True)]

    def find(self, record: Record) -> Job | None:
        """The job of a trial that an earlier runner has submitted, while Slurm still knows it as queued or running."""
        if self._local:
            return None
        import submitit

        try:
            name = (self._folder.trial(record.number) / "job").read_text(encoding="utf-8").strip()
        except OSError:
            return None
        job: Any = submitit.SlurmJob(self._folder.path / "jobs", name)
        return Job(job, self._folder, record.number) if job.state.split(" ")[0] in ALIVE else None


def _cores() -> int:
    """Cores of this job."""
    return int(os.environ.get("SLURM_CPUS_PER_TASK", len(os.sched_getaffinity(0))))


def _own(options: dict[str, str], submitit: Any) -> dict[str, Any]:
    """What was typed as slurm.<name>=value, under submitit's names. Raises ConfigError for a name it does not know."""
    generic = submitit.AutoExecutor._typed_parameters()
    special = submitit.SlurmExecutor._valid_parameters()
    found: dict[str, Any] = {}
    for name, value in options.items():
        if name not in generic and name not in special:
            allowed = sorted({*generic, *special})
            raise ConfigError(
                f"slurm.{name}: submitit has no such option.{did_you_mean(name, allowed)} Allowed: {', '.join(allowed)}"
            )
        try:
            typed: Any = generic[name](value) if name in generic else int(value) if value.isdigit() else value
        except ValueError as error:
            raise ConfigError(f"slurm.{name}={value}: must be a number") from error
        found[name if name in generic else f"slurm_{name}"] = typed
    return found
