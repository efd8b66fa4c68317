"""Claims and summaries made for a test."""

from __future__ import annotations

from typing import Any

from gradspike.tools.claims.summary import Record, Summary


def summary_of(values: dict[str, list[float]], **changes: Any) -> Summary:
    runs = [
        Record(seed=seed, parameters={"method": method}, values={"accuracy": value})
        for method, several in values.items()
        for seed, value in enumerate(several)
    ]
    return Summary(
        question="q", command="c", setting={}, made_with={"code": "x"}, planned=len(runs), runs=tuple(runs)
    ).model_copy(update=changes)
