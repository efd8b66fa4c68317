"""The storm itself: it detects orphans, hangs, silent deaths and differences, and passes with a few real kills."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from gradspike.runs.folder import RunFolder
from gradspike.training.checkpoint import AtomicFiles
from storm import session
from storm.commands import Result
from storm.faults import REFUSED, SAME, WRONG, judged
from storm.kills import RANKS, Storm, deck
from storm.moments import PHASES, Created, Records
from storm.same import FILES, differences
from storm.session import SIGNALS, Death, Session

LEAVES_A_CHILD = "import subprocess, time; subprocess.Popen(['sleep', '50'], start_new_session=True); time.sleep(50)"
DIES_MUTELY = "import os, signal, time; signal.signal(signal.SIGTERM, lambda *_: os._exit(1)); time.sleep(50)"
IGNORES = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(50)"


@pytest.fixture
def killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, signal.Signals], Death]:
    """What the storm sees of a program that gets a signal."""
    monkeypatch.setattr(session, "SECONDS_TO_DIE", 0.2)
    monkeypatch.setattr(session, "SECONDS_OF_SILENCE", 0.4)

    def death(program: str, signum: signal.Signals) -> Death:
        program = f"{program.replace('time.sleep', 'print(flush=True); time.sleep')}"
        one = Session([sys.executable, "-S", "-c", program], tmp_path, tmp_path / "log")
        while not one.output():
            time.sleep(0.01)
        os.kill(one.first.pid, signum)
        found = one.watch_death(signum, lambda: 0)
        assert not one.processes()
        return found

    return death


def test_orphans_hangs_and_mute_deaths_are_seen(killed: Callable[[str, signal.Signals], Death]) -> None:
    left = killed(LEAVES_A_CHILD, signal.SIGKILL)
    assert (left.code, left.orphans, left.mute(signal.SIGKILL)) == (-signal.SIGKILL, 1, False)
    mute = killed(DIES_MUTELY, signal.SIGTERM)
    assert (mute.code, mute.orphans, mute.mute(signal.SIGTERM)) == (1, 0, True)
    assert killed(IGNORES, signal.SIGTERM).code is None


@pytest.mark.parametrize(
    ("code", "sentence", "mute"),
    [(-15, "", False), (143, "", False), (1, "Error: why", False), (0, "", False), (1, "", True), (139, "x", True)],
)
def test_a_death_is_mute_without_a_code_or_a_sentence(code: int, sentence: str, mute: bool) -> None:
    assert Death(code, 1.0, 0, sentence, traceback=False).mute(signal.SIGTERM) == mute


def test_the_kills_of_a_seed_are_spread_and_do_not_repeat() -> None:
    kills = deck(40, random.Random(0))
    assert kills == deck(40, random.Random(0))
    assert len(set(kills)) == 40
    seen = {(kill.ranks, kill.signum, kill.phase) for kill in deck(100, random.Random(1))}
    assert seen == set(itertools.product(RANKS, SIGNALS, PHASES))
    assert len(deck(300, random.Random(2))) == 300


def saved(folder: Path, **changed: Any) -> RunFolder:
    run = RunFolder(folder)
    run.checkpoints.mkdir(parents=True)
    content = {
        "state_dict": {"w": torch.ones(2)},
        "optimizer_states": [{"m": torch.zeros(2)}],
        "config": {},
        "epoch": 1,
    }
    for name in ("last", "best"):
        AtomicFiles().save_checkpoint(
            {**content, "global_step": 1, "metrics_bytes": 3, **changed}, run.checkpoints / f"{name}.ckpt"
        )
    for file in FILES:
        (folder / file).write_text("{}")
    return run


def test_every_difference_between_runs_is_seen(tmp_path: Path) -> None:
    one = saved(tmp_path / "one")
    assert differences(one, saved(tmp_path / "same")) == []
    momentum = saved(tmp_path / "momentum", optimizer_states=[{"m": torch.tensor([0.0, 1e-30])}])
    places = [f"{name}.ckpt: /optimizer_states/0/m" for name in ("last", "best")]
    assert differences(one, momentum) == places
    assert differences(one, saved(tmp_path / "more", ranks=[1]))[0] == "last.ckpt: /ranks is in one only"
    other = saved(tmp_path / "files")
    (other.path / "metrics.jsonl").write_text("{} ")
    (other.path / "layers.json").unlink()
    other.best.write_bytes(b"")
    found = differences(one, other)
    assert "is damaged" in found[0]
    assert found[1:] == ["metrics.jsonl", "layers.json"]


@pytest.mark.parametrize(
    ("code", "output", "differs", "outcome"),
    [
        (0, "", [], SAME),
        (0, "", ["weights"], WRONG),
        (1, "Error: it is damaged\n", [], REFUSED),
        (1, "", [], WRONG),
        (1, "Traceback\nError: x", [], WRONG),
        (0, "Traceback", [], WRONG),
    ],
)
def test_a_result_is_the_same_refused_or_wrong(code: int, output: str, differs: list[str], outcome: str) -> None:
    assert judged(Result(code, output), differs)[0] == outcome


def test_only_new_whole_records_count(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 0}\n{"step": 1}\n')
    records = Records(file)
    assert records.new() == []
    file.write_text('{"step": 0}\n')  # a resumed run cuts its file
    assert records.new() == []
    with file.open("a") as more:
        more.write('{"step": 2}\n{"st')
    assert records.new() == [{"step": 2}]
    with file.open("a") as more:
        more.write('ep": 3}\n')
    assert records.new() == [json.loads('{"step": 3}')]


def test_new_files_are_reported(tmp_path: Path) -> None:
    created = Created(tmp_path)
    assert not created.wait(".partial", 0)
    (tmp_path / ".last.ckpt.partial").touch()
    assert created.wait(".partial", 1)
    created.close()


@pytest.mark.slow
def test_killed_runs_resume_to_the_same_bytes(tmp_path: Path) -> None:
    said: list[str] = []
    storm = Storm(tmp_path, seed=1, say=said.append)
    storm.go(4)
    assert not storm.failed, "\n".join(said)
    assert len(storm.struck) == 4
    assert storm.ended
