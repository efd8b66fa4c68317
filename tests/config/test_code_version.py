"""The digest of the code changes only with what is computed."""

from __future__ import annotations

import functools
import shutil
from pathlib import Path

import pytest

from gradspike.runs import code_version
from gradspike.runs.code_version import meaning, source_digest

CODE = """\
def half(x):
    if x < 0:
        raise ValueError(f"{x} is negative")
    return x / 2
"""


@pytest.mark.parametrize(
    "other",
    [
        "# a comment\n\n" + CODE,
        CODE.replace("def half(x):\n", 'def half(x):\n    """Half."""\n'),
        CODE.replace("is negative", "must not be negative"),
        CODE.replace("x / 2", "(x  /\n 2)"),
    ],
    ids=["comment", "docstring", "wording of an error", "layout"],
)
def test_a_cosmetic_edit_changes_nothing(other: str) -> None:
    assert meaning(other) == meaning(CODE)


@pytest.mark.parametrize(
    "other",
    [
        CODE.replace("/ 2", "/ 3"),
        CODE.replace("x < 0", "x <= 0"),
        CODE.replace("x / 2", "'x / 2'"),
        CODE.replace("def half(x)", "def half(x=1)"),
        CODE.replace("ValueError", "TypeError"),
        CODE + "half = None\n",
    ],
)
def test_an_edit_of_what_is_computed_counts(other: str) -> None:
    assert meaning(other) != meaning(CODE)


meaning_once = functools.cache(meaning)  # of a hundred files, of which each test edits one


@pytest.mark.parametrize(
    ("file", "counts"),
    [
        ("surrogate.py", True),
        ("engine/eager.py", True),
        ("config/schema.py", True),
        ("tools/compare/groups.py", False),
        ("cli/train.py", False),
        ("terminal/tables.py", False),
    ],
)
def test_files_that_compute_count(file: str, counts: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ignored = shutil.ignore_patterns("__pycache__", "conf")
    shutil.copytree(code_version.PACKAGE, tmp_path / "gradspike", ignore=ignored)
    monkeypatch.setattr(code_version, "PACKAGE", tmp_path / "gradspike")
    monkeypatch.setattr(code_version, "meaning", meaning_once)
    edited = tmp_path / "gradspike" / file
    before = source_digest.__wrapped__()
    edited.write_text(edited.read_text() + "\n# a comment\n")
    assert source_digest.__wrapped__() == before
    edited.write_text(edited.read_text() + "\nMORE = 1\n")
    assert (source_digest.__wrapped__() != before) == counts
