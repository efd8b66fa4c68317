"""Full disks, flipped bits and lost files: the result is the same, or refused with a sentence, never silently wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from storm.commands import Result
from storm.table import markdown

SAME, REFUSED, WRONG = "same result", "refused", "WRONG"


@dataclass
class Row:
    """What came of one kind of fault. notes: distinct things that were said, with an example each."""

    fault: str
    command: str
    outcomes: Counter[str] = field(default_factory=Counter)
    notes: dict[str, str] = field(default_factory=dict)

    def count(self, outcome: str, what: str, said: str = "") -> None:
        self.outcomes[outcome] += 1
        if outcome == WRONG or said:
            self.notes.setdefault(said or outcome, what)


def judged(result: Result, differs: Iterable[str]) -> tuple[str, str]:
    """The outcome of a command whose result should be that of an undamaged run, and why."""
    if "Traceback" in result.output:
        return WRONG, f"traceback: {result.last_line}"
    if result.code:
        # A message may have several lines.
        said = next((line for line in result.output.splitlines() if line.startswith("Error: ")), None)
        return (REFUSED, said) if said is not None else (WRONG, result.last_line)
    found = list(differs)
    return (WRONG, "differs: " + ", ".join(found)) if found else (SAME, "")


def table(rows: Sequence[Row]) -> str:
    head = ["fault", "then", "tried", SAME, REFUSED, "silently wrong, or a traceback"]
    lines = [
        [row.fault, row.command, str(row.outcomes.total()), *(str(row.outcomes[one]) for one in (SAME, REFUSED, WRONG))]
        for row in rows
    ]
    return markdown(head, lines)


def run(folder: Path, flips: int, seed: int, say: Callable[[str], None]) -> bool:
    """Try all faults, print what was said and the table. Returns whether anything went wrong."""
    from storm import flipped, full, lost
    from storm.commands import Lab

    lab = Lab(folder)
    rows: list[Row] = []
    for part in (full.rows(lab), flipped.rows(lab, flips, seed), lost.rows(lab)):
        for row in part:
            rows.append(row)
            say(f"{row.fault}, {row.command}: {', '.join(f'{number} {what}' for what, number in row.outcomes.items())}")
            for said, example in row.notes.items():
                say(f"    {example}: {said}")
    say(f"\n{table(rows)}")
    return any(row.outcomes[WRONG] for row in rows)
