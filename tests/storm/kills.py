"""Random kills of trainings on one or several processes; every run is resumed and compared with an unbroken one."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gradspike.config.overrides import override
from gradspike.runs.folder import RunFolder
from helpers.command import GRADSPIKE, TINY
from helpers.forks import ForkServer
from storm.moments import PHASES, Plan, Records, is_last_epoch, is_step, reached
from storm.same import differences
from storm.session import SIGNALS, Death, ForkedSession, Session
from storm.table import markdown

RANKS = (1, 2, 4)
AGAIN = 0.5
"""How often the resumed session of a killed run is killed too, rather than left to finish."""
SECONDS_TO_FINISH = 300.0
# Everything that a resumed run has to restore: an average, buffers of a method, random numbers of each rank, a probe.
WORDS = [*TINY, "method=ds_atgo", "time_steps=2", "trainer.max_epochs=3", "trainer.ema=0.9", "loss.mixup=0.4"]
WORDS += ["model.encoder=poisson", "dataset.normalize=unit", "dataset.eval_batch_size=16"]
WORDS += ["checkpoint.every_n_steps=5", "probe.every_n_steps=1", "runs_dir=runs"]
EPOCHS = 3


@dataclass(frozen=True)
class Kill:
    """What to do to a session. everyone: the signal goes to the whole process group, otherwise to one rank."""

    ranks: int
    signum: signal.Signals
    everyone: bool
    phase: str


@dataclass
class Run:
    """A run that is killed, in a folder of its own."""

    folder: Path
    ranks: int
    sessions: int = 0
    kills: list[int] = field(default_factory=list)

    def path(self) -> Path | None:
        """The run's folder, as soon as it can be resumed."""
        return next((file.parent for file in self.folder.glob("runs/*/config.yaml")), None)

    def session(self, data: Path, server: ForkServer | None) -> Session:
        """The command that starts or resumes it; with a server, as its forks."""
        self.sessions += 1
        run = self.path()
        words = [*WORDS, f"trainer.devices={self.ranks}", f"data_dir={data}"]
        if run is not None:
            words = [override("resume", str(run))]
        if server is not None:
            return ForkedSession(server, ["train", *words], self.folder, self.ranks)
        return Session([*GRADSPIKE, "train", *words], self.folder, self.folder / f"session_{self.sessions}.log")


@dataclass(frozen=True)
class Struck:
    """A kill, what was hit, and what came of it."""

    kill: Kill
    whom: str
    death: Death

    @property
    def mute(self) -> bool:
        return self.death.mute(self.kill.signum)


@dataclass(frozen=True)
class Ended:
    """A killed run after its last session. problem: why it could not be resumed to its end."""

    run: Run
    problem: str | None
    differences: tuple[str, ...] = ()


def deck(kills: int, draw: random.Random) -> list[Kill]:
    """So many kills, without repetition as long as that is possible."""
    every = [
        Kill(ranks, signum, everyone, phase)
        for ranks, signum, everyone, phase in itertools.product(RANKS, SIGNALS, (True, False), PHASES)
        if ranks > 1 or everyone
    ]
    drawn: list[Kill] = []
    while len(drawn) < kills:
        drawn += draw.sample(every, min(len(every), kills - len(drawn)))
    return drawn


class Storm:
    """The kills of one seed. Everything happens below `folder`; `say` prints a line. forked: see `ForkedSession`."""

    def __init__(self, folder: Path, seed: int, say: Callable[[str], None], forked: bool = False) -> None:
        self.folder, self.say = folder, say
        self._server = ForkServer(OMP_NUM_THREADS="1") if forked else None
        self.draw = random.Random(seed)
        self.struck: list[Struck] = []
        self.ended: list[Ended] = []
        self._unbroken: dict[int, tuple[RunFolder, Plan]] = {}
        self._numbers = itertools.count(1)

    def go(self, kills: int) -> None:
        """Kill, resume and compare."""
        todo = deck(kills, self.draw)
        for ranks in sorted({kill.ranks for kill in todo}):
            self._unbroken[ranks] = self._train_unbroken(ranks)
        open_runs: dict[int, Run] = {}
        missed = 0
        while todo:
            kill = todo.pop(0)
            run = open_runs.pop(kill.ranks, None)
            if run is not None and self.draw.random() > AGAIN:
                self._finish(run)
                run = None
            run = run or self._new_run(kill.ranks)
            if self._strike(kill, run):
                open_runs[kill.ranks] = run
                continue
            self._finish(run)  # it had ended before its time came
            missed += 1
            if missed > 5 * kills:
                raise RuntimeError("most trainings end before they can be killed")
            todo.insert(0, kill)
        for run in open_runs.values():
            self._finish(run)

    def _train_unbroken(self, ranks: int) -> tuple[RunFolder, Plan]:
        run = self._new_run(ranks, "unbroken")
        session = run.session(self.folder / "data", self._server)
        started, closed, steps = time.monotonic(), 0.0, 0
        times: dict[str, float] = {}
        last = started  # time of the last step
        records: Records | None = None
        while session.first.poll() is None:
            time.sleep(0.003)
            path = run.path()
            records = records or (Records(path / "metrics.jsonl") if path else None)
            for record in records.new() if records else []:
                now = time.monotonic()
                times.setdefault("start-up", now - started)
                if "epoch" in record:
                    steps = steps or int(record["step"])
                    times["validation"] = now - last
                    closed = now
                elif is_step(record):
                    times["training"], last = now - last, now
        times["test"] = time.monotonic() - closed
        path = run.path()
        if session.first.returncode or path is None or not steps:
            raise RuntimeError(f"the unbroken training failed:\n{session.output()}")
        seconds = ", ".join(f"{phase} {times[phase]:.1f} s" for phase in times)
        self.say(f"unbroken on {ranks}: {time.monotonic() - started:.0f} s ({seconds})")
        return RunFolder(path), Plan(steps, EPOCHS, times)

    def _new_run(self, ranks: int, name: str = "run") -> Run:
        folder = self.folder / f"{name}_{next(self._numbers)}"
        folder.mkdir(parents=True)
        return Run(folder, ranks)

    def _strike(self, kill: Kill, run: Run) -> bool:
        """Start the next session of a run and kill it. False if it ended before."""
        session = run.session(self.folder / "data", self._server)
        try:
            if not reached(kill.phase, session, run.path, self._unbroken[kill.ranks][1], self.draw):
                return False
            where = _last_record(run.path())
            ranks = session.ranks()
            if 0 not in ranks:
                return False
            rank = self.draw.choice(sorted(ranks))
            if kill.everyone:
                os.killpg(session.first.pid, kill.signum)
            else:
                os.kill(ranks[rank], kill.signum)
            death = session.watch_death(kill.signum, lambda: _size(run))
        except ProcessLookupError:
            return False
        finally:
            session.end()
        whom = f"all {len(ranks)}" if kill.everyone else f"rank {rank} of {len(ranks)}"
        struck = Struck(kill, whom, death)
        self.struck.append(struck)
        run.kills.append(len(self.struck))
        self.say(line(len(self.struck), struck, where))
        return True

    def _finish(self, run: Run) -> None:
        """Resume a run until it has ended, and compare it."""
        session = run.session(self.folder / "data", self._server)
        code = None
        try:
            code = session.first.wait(SECONDS_TO_FINISH)
        except TimeoutError:
            pass
        finally:
            session.end()
        path = run.path()
        if code != 0 or path is None:
            ended = Ended(run, f"ended with {code}: {session.output()[-500:]}")
        else:
            unbroken, _ = self._unbroken[run.ranks]
            ended = Ended(run, None, tuple(differences(unbroken, RunFolder(path))))
        self.ended.append(ended)
        result = ended.problem or ", ".join(ended.differences) or "identical"
        self.say(f"     kills {', '.join(map(str, run.kills)) or 'none'} on {run.ranks}: {result}")

    @property
    def failed(self) -> bool:
        bad = any(one.mute or one.death.orphans or one.death.code is None or one.death.traceback for one in self.struck)
        return bad or any(one.problem or one.differences for one in self.ended)


def line(number: int, struck: Struck, where: str) -> str:
    """A kill in one line."""
    kill, death = struck.kill, struck.death
    code = "HUNG" if death.code is None else f"exit {death.code}"
    marks = (
        [f"{death.orphans} ORPHANS"] * bool(death.orphans) + ["MUTE"] * struck.mute + ["TRACEBACK"] * death.traceback
    )
    return (
        f"{number:3}. {kill.ranks} {'rank ' if kill.ranks == 1 else 'ranks'} {kill.signum.name[3:]:<4} "
        f"{struck.whom:<11} {kill.phase:<10} {where:<13} {code:<8} {death.seconds:4.1f} s "
        f"{' '.join([*marks, ''])}{death.sentence[:100]}"
    )


def _last_record(run: Path | None) -> str:
    """How far a run is: its last record."""
    try:
        assert run is not None
        record = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    except (AssertionError, OSError, ValueError, IndexError):
        return "no record"
    if is_last_epoch(record, EPOCHS):
        return "trained"
    return f"epoch {record['epoch'] + 1}" if "epoch" in record else f"step {record['step'] + 1}"


def _size(run: Run) -> int:
    return sum(file.stat().st_size for file in run.folder.glob("runs/*/metrics.jsonl"))


def report(storm: Storm) -> str:
    """The table: a row for each number of ranks, signal and phase, and one for all."""
    groups: list[tuple[str, Callable[[Struck], bool]]] = []
    for ranks in RANKS:
        groups.append(
            (f"{ranks} {'process' if ranks == 1 else 'processes'}", lambda one, of=ranks: one.kill.ranks == of)
        )
    for signum in SIGNALS:
        groups.append((signum.name, lambda one, of=signum: one.kill.signum == of))
    groups.append(("to one of several", lambda one: not one.kill.everyone))
    for phase in PHASES:
        groups.append(
            (f"at {phase}" if phase == "start-up" else f"in {phase}", lambda one, of=phase: one.kill.phase == of)
        )
    groups.append(("**all**", lambda one: True))
    head = ["kills", "number", "orphans", "hangs", "mute", "tracebacks", "runs resumed", "identical", "end after, s"]
    rows = []
    for name, belongs in groups:
        chosen = [one for one in storm.struck if belongs(one)]
        if chosen:
            numbers = {number for number, one in enumerate(storm.struck, 1) if belongs(one)}
            rows.append([name, *_counts(chosen, [one for one in storm.ended if numbers & set(one.run.kills)])])
    return markdown(head, rows)


def _counts(struck: Sequence[Struck], ended: Iterable[Ended]) -> list[str]:
    runs = list(ended)
    seconds = [one.death.seconds for one in struck]
    return [
        str(len(struck)),
        str(sum(one.death.orphans for one in struck)),
        str(sum(one.death.code is None for one in struck)),
        str(sum(one.mute for one in struck)),
        str(sum(one.death.traceback for one in struck)),
        f"{sum(one.problem is None for one in runs)} of {len(runs)}",
        str(sum(one.problem is None and not one.differences for one in runs)),
        f"{statistics.median(seconds):.1f}, at most {max(seconds):.1f}",
    ]
