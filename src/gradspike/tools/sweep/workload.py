"""What a runner is to run, and what it has under way."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from optuna.trial import FrozenTrial

from gradspike.tools.sweep.file import Metric
from gradspike.tools.sweep.folder import Record, SweepFolder
from gradspike.tools.sweep.parameters import Parameter
from gradspike.tools.sweep.running import Active
from gradspike.tools.sweep.slurm import Cluster
from gradspike.tools.sweep.study import Study
from gradspike.tools.sweep.table import Table
from gradspike.tools.sweep.words import Words


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


@dataclass
class Workload:
    """The trials of one runner. Their state is in the study and in their records; this is what the runner does now.

    Attributes:
        name: the runner's, once it is registered in the folder.
        active: trials that run, by number.
        again: records of trials to start again, by number.
        tries: how often this runner started each trial.
        given_up: trials that this runner does not start again.
        trials: all trials of the study, as they were when the runner last looked.
        known: whether all of them had values then, so that none waits for the results of others.
    """

    folder: SweepFolder
    study: Study
    plan: Plan
    cluster: Cluster | None
    table: Table
    name: str = ""
    active: dict[int, Active] = field(default_factory=dict)
    again: dict[int, Record] = field(default_factory=dict)
    tries: Counter[int] = field(default_factory=Counter)
    given_up: set[int] = field(default_factory=set)
    trials: list[FrozenTrial] = field(default_factory=list)
    known: bool = True

    def look(self) -> None:
        """Read the trials of the study again."""
        self.trials = self.study.trials()
        self.known = all(trial.user_attrs.get("values") for trial in self.trials)

    def has(self, number: int) -> bool:
        """Whether this runner has a trial under way, or has given it up."""
        return number in self.active or number in self.again or number in self.given_up

    def free(self) -> int:
        """The number of trials that may start now."""
        if self.cluster is not None and self.known:
            return len(self.trials)  # the cluster limits the array
        free = self.plan.workers - len(self.active)
        if self.plan.gpus:
            free = min(free, len(self.free_gpus()) // self.plan.gpus_needed)
        return max(0, free)

    def free_gpus(self) -> list[str]:
        """The GPUs of the plan that no trial of this runner uses."""
        taken = {gpu for active in self.active.values() for gpu in active.record.gpus}
        return [gpu for gpu in self.plan.gpus if gpu not in taken]
