"""Single flipped bits in checkpoints."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gradspike.errors import UserError
from gradspike.runs.folder import RunFolder
from gradspike.training.checkpoint import load_checkpoint, newest_state
from storm.commands import Lab
from storm.faults import REFUSED, SAME, WRONG, Row, judged
from storm.same import differences, unequal

WHOLE_COMMANDS = 8
"""So many flips are followed by the command itself; for the others, the checkpoint is read as the command reads it."""
BEFORE = "continued from the state before"


def rows(lab: Lab, flips: int, seed: int) -> Iterator[Row]:
    draw = random.Random(seed)
    with lab.copy(lab.stopped) as run:
        whole = load_checkpoint(run.last)
        older = load_checkpoint(run.checkpoints / "last-1.ckpt")
        row = Row("bit of `last.ckpt` flipped", "read to resume")

        def resumed() -> str:
            state = newest_state(run)
            assert state is not None
            if state.path == run.last:
                return WRONG if state.problems or list(unequal(state.content, whole)) else SAME
            return WRONG if not state.problems or list(unequal(state.content, older)) else REFUSED

        _flip_many(run.last, flips, draw, row, resumed)
        yield row
        row = Row("bit of `best.ckpt` flipped", "read to evaluate")
        best = load_checkpoint(run.best)

        def read() -> str:
            return WRONG if list(unequal(load_checkpoint(run.best), best)) else SAME

        _flip_many(run.best, flips, draw, row, read)
        yield row
    row = Row("bit of `last.ckpt` flipped", "`train resume=`")
    for _ in range(WHOLE_COMMANDS):
        with lab.copy(lab.stopped) as run:
            place = _flip(run.last, draw)
            result = lab.command(run.path.parents[1], "train", f"resume={run.path}")
            row.count(*_command(result, run, lab, f"bit {place}"))
    yield row


def _command(result: Any, run: RunFolder, lab: Lab, what: str) -> tuple[str, str, str]:
    outcome, why = judged(result, [] if result.code else differences(lab.unbroken, run))
    return outcome, what, why


def _flip_many(file: Path, flips: int, draw: random.Random, row: Row, read: Callable[[], str]) -> None:
    whole = file.read_bytes()
    for _ in range(flips):
        place = _flip(file, draw)
        try:
            outcome = read()
        except UserError:
            row.count(REFUSED, f"bit {place}")
        except Exception as error:
            row.count(WRONG, f"bit {place}", repr(error))
        else:
            row.count(outcome, f"bit {place}")
        file.write_bytes(whole)


def _flip(file: Path, draw: random.Random) -> int:
    """Flip a random bit. Returns its place."""
    content = bytearray(file.read_bytes())
    place = draw.randrange(8 * len(content))
    content[place // 8] ^= 1 << place % 8
    file.write_bytes(content)
    return place
