"""Trials as Slurm jobs, through submitit. `submitit-local` runs the same code without a cluster."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from gradspike.cores import cores
from gradspike.errors import ConfigError, UserError
from gradspike.runs.files import write_atomically
from gradspike.started import python_path
from gradspike.tools.sweep.folder import Record, SweepFolder
from gradspike.tools.sweep.running import Running
from gradspike.tools.sweep.slurm_options import MAX_NUM_TIMEOUT, import_submitit
from gradspike.tools.sweep.slurm_queue import Queue
from gradspike.tools.sweep.trial import start, stop_file
from gradspike.tools.sweep.words import Words
from gradspike.variables import whole_number

if TYPE_CHECKING:
    import subprocess

SECONDS_TO_SAVE = 90
TIME_SLICES = 10_000  # submitit gives up a job after three; a trial may need any number
DEFAULTS: dict[str, Any] = {"timeout_min": 24 * 60, "nodes": 1, "tasks_per_node": 1}


class TrialJob:
    """A job that starts or resumes one trial.

    submitit pickles it, and calls `checkpoint` when Slurm announces (SIGUSR2) the end of the job's time or its
    preemption. Then the training saves and stops, and the job is queued again.
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
        """Train. Returns the exit code, or None if the trial is done or another process trains it."""
        import submitit

        folder = SweepFolder(self.folder)
        record, lock = folder.record(self.number), folder.lock_trial(self.number)
        if record is None or lock is None or record.state not in ("queued", "running"):
            return None
        environment = submitit.JobEnvironment()
        record = record.model_copy(update={"job": environment.job_id})
        wish = stop_file(folder, self.number)
        threads = (whole_number("SLURM_CPUS_PER_TASK") or cores()) // self.processes
        # With proctrack/pgid, scancel reaches only processes in the session of the job.
        apart = environment.cluster != "slurm"
        _, self.process = start(folder, self.words, record, lock, max(1, threads), own_session=apart)
        while self.process.poll() is None:
            if wish.exists():
                wish.unlink(missing_ok=True)
                self.process.terminate()
            time.sleep(0.2)
        return self.process.returncode

    def checkpoint(self) -> Any:
        """Save and stop the training. Returns the job to queue again."""
        import submitit

        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            deadline = time.monotonic() + SECONDS_TO_SAVE
            while self.process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.2)
        return submitit.helpers.DelayedSubmission(self)


class Job(Running):
    """A submitted job."""

    detached = True

    def __init__(self, job: Any, folder: SweepFolder, number: int, queue: Queue | None) -> None:
        self._job = job
        self._folder = folder
        self._number = number
        self._queue = queue
        self.name = str(job.job_id)

    @override
    def alive(self) -> bool:
        waits = not self._job.done() if self._queue is None else self._queue.has(self.name)
        return waits or self._folder.is_training(self._number)

    @override
    def code(self) -> int | None:
        try:
            result = self._job.result() if self._job.paths.result_pickle.exists() else None
        except Exception:  # submitit raises whatever the job raised
            return None
        return result if isinstance(result, int) else None

    @override
    def stop(self, hard: bool = False) -> None:
        if hard:
            self._job.cancel()
        stop_file(self._folder, self._number).touch()

    @override
    def cancelled(self) -> bool:
        state = self._queue.state(self.name) if self._queue is not None else None
        # The queue forgets a job some minutes after its end; the accounting, if the cluster has one, does not.
        return (state or str(self._job.state)).startswith("CANCELLED")


class Cluster:
    """Submits trials. `options` are submitit's. Raises UserError if submitit or Slurm is missing or refuses them."""

    def __init__(
        self,
        folder: SweepFolder,
        words: Words,
        local: bool,
        workers: int,
        gpus: int,
        processes: int,
        options: dict[str, Any],
    ) -> None:
        self._submitit = import_submitit()
        self._queue = None if local else Queue()
        self._folder = folder
        self._words = words
        self._processes = processes
        self._local = local
        if not local and re.search(r"[%\\]", str(folder.path)):
            raise ConfigError(f"folder={folder.path}: sbatch replaces % and \\ in a path. Choose another")
        slices = options.get(f"slurm_{MAX_NUM_TIMEOUT}", TIME_SLICES)
        own = {key: value for key, value in options.items() if key != f"slurm_{MAX_NUM_TIMEOUT}"}
        name = " ".join(folder.path.name.split())
        parameters = {**DEFAULTS, "name": name, **({"gpus_per_node": gpus} if gpus else {})}
        if not local:
            parameters |= {"slurm_array_parallelism": workers, "slurm_signal_delay_s": SECONDS_TO_SAVE + 30}
        # Jobs import this package, even if it is not installed but started from its folder.
        os.environ.update(python_path(os.environ))
        try:
            cluster = "local" if local else "slurm"
            executor = self._submitit.AutoExecutor(
                folder=folder.path / "jobs", cluster=cluster, **{f"{cluster}_{MAX_NUM_TIMEOUT}": slices}
            )
            executor.update_parameters(**{**parameters, **own})
        except (RuntimeError, ValueError, NameError) as error:
            raise UserError(f"executor={cluster}: {error}") from error
        self._executor = executor

    def submit(self, numbers: Sequence[int]) -> list[Job]:
        """Submit one job for each trial, as one array. Raises UserError if Slurm refuses them."""
        work = [TrialJob(self._folder.path, self._words, number, self._processes) for number in numbers]
        for number in numbers:
            stop_file(self._folder, number).unlink(missing_ok=True)
        utils = self._submitit.core.utils
        try:
            if self._local:
                jobs = [self._executor.submit(job) for job in work]
            else:
                with self._executor.batch():
                    jobs = [self._executor.submit(job) for job in work]
        except (utils.FailedJobError, utils.FailedSubmissionError, OSError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UserError(f"executor=slurm: the jobs could not be submitted: {reason}") from error
        for number, job in zip(numbers, jobs, strict=True):
            write_atomically(self._folder.trial(number) / "job", f"{job.job_id}\n")
        if self._queue is not None:
            self._queue.outdate()
        return [Job(job, self._folder, number, self._queue) for number, job in zip(numbers, jobs, strict=True)]

    def find(self, record: Record) -> Job | None:
        """The job of a trial that an earlier runner submitted, if Slurm still has it queued or running."""
        if self._queue is None:
            return None
        try:
            name = (self._folder.trial(record.number) / "job").read_text(encoding="utf-8").strip()
        except OSError:
            return None
        if not self._queue.has(name):
            return None
        return Job(self._submitit.SlurmJob(self._folder.path / "jobs", name), self._folder, record.number, self._queue)
