"""JSON with numbers that are not finite: no record is lost, and every parser can read it."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest

from gradspike.json_text import to_json
from gradspike.loggers.jsonl import JsonLines
from gradspike.runs.files import write_json
from helpers.command import ROOT


def strictly(text: str) -> object:
    """Parse strictly, as JavaScript and most other parsers do."""

    def refuse(name: str) -> object:
        raise ValueError(name)

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_become_null(number: float) -> None:
    record = {"loss": number, "grid": [[0.5, number], (1, {"deep": number})], "name": "NaN"}
    expected = {"loss": None, "grid": [[0.5, None], [1, {"deep": None}]], "name": "NaN"}
    assert strictly(to_json(record)) == expected
    assert strictly(to_json(record, indent=2, sort_keys=True)) == expected


def test_finite_records_are_written_as_json_does() -> None:
    record = {"b": [1, 2.5, None, True], "a": "ä", "tiny": 1e-300}
    assert to_json(record) == json.dumps(record)
    assert to_json(record, indent=1, sort_keys=True) == json.dumps(record, indent=1, sort_keys=True)
    with pytest.raises(TypeError):
        to_json({"a": object()})


def test_the_files_of_a_run_keep_a_record_with_nan(tmp_path: Path) -> None:
    write_json(tmp_path / "summary.json", {"val": {"loss": math.nan, "accuracy": 0.5}})
    assert strictly((tmp_path / "summary.json").read_text()) == {"val": {"loss": None, "accuracy": 0.5}}
    JsonLines(tmp_path / "metrics.jsonl").log_metrics({"train/loss": math.inf, "train/accuracy": 0.25}, 3)
    assert strictly((tmp_path / "metrics.jsonl").read_text()) == {
        "step": 3,
        "train/loss": None,
        "train/accuracy": 0.25,
    }


def test_all_json_is_written_in_one_place() -> None:
    found = [
        str(path.relative_to(ROOT))
        for path in (ROOT / "src").rglob("*.py")
        if re.search(r"\bjson\.dumps?\(", path.read_text(encoding="utf-8"))
    ]
    assert found == ["src/gradspike/json_text.py"]
