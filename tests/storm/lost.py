"""Each file of a run folder removed, emptied or cut in half in turn."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

from gradspike.runs.folder import RunFolder
from storm.commands import Lab, Result
from storm.faults import REFUSED, Row, judged
from storm.same import CHECKPOINTS, differences


def removed(file: Path) -> None:
    file.unlink()


def emptied(file: Path) -> None:
    file.write_bytes(b"")


def halved(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def rows(lab: Lab) -> Iterator[Row]:
    tried: list[tuple[str, RunFolder, Callable[[Lab, RunFolder, str], tuple[str, str]]]] = [
        ("`train resume=`, stopped run", lab.stopped, resumed),
        ("`train resume=`, finished run", lab.unbroken, resumed),
        ("`evaluate`", lab.unbroken, evaluated),
        ("`compare`", lab.unbroken, compared),
    ]
    for damage in (removed, emptied, halved):
        for title, run, command in tried:
            row = Row(f"each file {damage.__name__}", title)
            for file in files(run):
                with lab.copy(run) as copy:
                    damage(copy.path / file)
                    outcome, said = command(lab, copy, file)
                row.count(outcome, file, said.replace(str(lab.folder), ""))
            yield row


def files(run: RunFolder) -> list[str]:
    """The names of the files of a run."""
    return sorted(
        str(file.relative_to(run.path)) for file in run.path.rglob("*") if file.is_file() and file.stat().st_size
    )


def resumed(lab: Lab, run: RunFolder, file: str) -> tuple[str, str]:
    """A finished run with all its results stays as it is, without the checkpoints that somebody may have deleted."""
    result = lab.command(run.path.parents[1], "train", f"resume={run.path}")
    if result.code:
        return judged(result, [])
    left_alone = Path(file).name if "is finished; nothing to do" in result.output else None
    compared = [name for name in CHECKPOINTS if name != left_alone]
    different = differences(lab.unbroken, run, compared)
    if f"It has no {file}" in result.output:  # neurobench.json, which runs of older versions do not have
        different.remove(file)
    return judged(result, different)


def evaluated(lab: Lab, run: RunFolder, file: str) -> tuple[str, str]:
    words = ("evaluate", f"run={run.path}", "accelerator=cpu")
    result = lab.command(run.path.parents[1], *words)
    if result.code:
        return judged(result, [])
    found = json.loads((run.path / "evaluation_test.json").read_text())
    return judged(result, [] if found == lab.once("evaluate", lambda: _evaluation(lab)) else ["evaluation_test.json"])


def _evaluation(lab: Lab) -> object:
    with lab.copy(lab.unbroken) as run:
        lab.command(run.path.parents[1], "evaluate", f"run={run.path}", "accelerator=cpu")
        return json.loads((run.path / "evaluation_test.json").read_text())


def compared(lab: Lab, run: RunFolder, file: str) -> tuple[str, str]:
    """Its table is that of two runs, or it says that it left this one out."""
    result, found = _comparison(lab, run)
    if result.code:
        return judged(result, [])
    if found == lab.once("compare", lambda: _whole_comparison(lab)):
        return judged(result, [])
    said = next((line for line in result.output.splitlines() if run.path.name in line), None)
    if said is not None and "Traceback" not in result.output:
        return REFUSED, said.strip()
    return judged(result, ["the table"])


def _whole_comparison(lab: Lab) -> str:
    with lab.copy(lab.unbroken) as run:
        return _comparison(lab, run)[1]


def _comparison(lab: Lab, run: RunFolder) -> tuple[Result, str]:
    folder = run.path.parents[1]
    out = folder / "table.csv"
    result = lab.command(folder, "compare", "runs", "--out", str(out))
    return result, out.read_text() if out.is_file() else ""
