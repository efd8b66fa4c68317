"""Writes the numbers of a measuring script where `gradspike claims` reads them: docs/results/claims/<script>.json."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from gradspike.runs.environment import environment
from gradspike.runs.files import write_output
from gradspike.tools.claims.summary import Record, Summary, summary_text

ROOT = Path(__file__).resolve().parents[2]


def store(
    script: str,
    question: str,
    arguments: str,
    setting: Mapping[str, str | int | float | bool | None],
    runs: Sequence[Record],
    before: str = "",
) -> None:
    """Write the summary and print its path. before: the command that makes what the script measures."""
    name = Path(script).stem
    here = environment([])
    made_with = {
        "processor": str(here["processor"]),
        "python": str(here["python"]),
        "torch": str(here["versions"]["torch"]),
        "code": str(here["source"]),
    }
    summary = Summary(
        question=question,
        command="\n".join([before, f"python benchmarks/claims/{name}.py {arguments}"]).strip(),
        setting=dict(setting),
        made_with=made_with,
        planned=len(runs),
        runs=tuple(runs),
    )
    path = ROOT / "docs" / "results" / "claims" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_output(path, summary_text(summary), "")
    print(f"written: {path.relative_to(ROOT)}")
