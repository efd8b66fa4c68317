"""Trainings shown in the README and in docs/ have valid configurations; those marked as refused are refused."""

from __future__ import annotations

import itertools
import re
import shlex
from pathlib import Path

import pytest

from gradspike.config.compose import load_config
from gradspike.errors import UserError
from helpers.command import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
GUIDES = ("add_a_method.md", "add_a_neuron.md", "add_a_norm.md", "own_parts.md", "fine_tuning.md")
"""Their tests write the parts and files that these pages name, and train with them."""
PROGRAM = re.compile(r"(?:gradspike|python -m gradspike|python src/train\.py)(?: train)? (?=.*=)")


def trainings(page: Path) -> list[tuple[str, bool]]:
    """The words after the program of each training in a page's code blocks, and whether a comment says `refused`."""
    parts = re.findall(r"^```\w*\n(.*?)^```$", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    lines = [line.strip() for part in parts for line in part.replace("\\\n", " ").splitlines()]
    shown = [line for line in lines if re.match(r"(gradspike|python -m gradspike) train |python src/train\.py ", line)]
    return [(PROGRAM.sub("", line, count=1), "# refused" in line) for line in shown if "--help" not in line]


def runs(words: list[str]) -> list[list[str]]:
    """One run of a multirun for each option of each list; other commands as they are."""
    if "-m" not in words and "--multirun" not in words:
        return [words]
    lists = [
        [(key, value) for value in values.split(",")] for key, _, values in (word.partition("=") for word in words)
    ]
    longest = max(len(one) for one in lists)
    turns = zip(*(itertools.islice(itertools.cycle(one), longest) for one in lists), strict=True)
    return [[f"{key}={value}" for key, value in turn if not key.startswith("-")] for turn in turns]


@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in GUIDES], ids=lambda page: page.stem)
def test_trainings_of_a_page_are_accepted(page: Path) -> None:
    for line, refused in trainings(page):
        words = [word for word in shlex.split(line, comments=True) if word not in ("--cfg", "job")]
        if any("<" in word or "..." in word for word in words) or "trainer=ddp" in words:
            continue  # a place of the reader's; trainer=ddp counts the GPUs of the machine
        answers = {answer for one in runs(words) if (answer := error_of(one))}
        assert bool(answers) == refused, f"{page.name}: {line}: {answers or 'accepted'}"


def error_of(words: list[str]) -> str:
    """Why these words are refused; empty if they are accepted."""
    try:
        load_config(words)
    except UserError as error:
        return str(error)
    return ""


def test_the_pages_show_trainings() -> None:
    """The README's quick commands and the one on recipes that is refused are found."""
    assert len(trainings(ROOT / "README.md")) >= 8
    assert [refused for _, refused in trainings(ROOT / "docs" / "recipes.md")].count(True) == 1
    assert runs(["method=a,b", "seed=0,1,2", "-m"]) == [
        ["method=a", "seed=0"],
        ["method=b", "seed=1"],
        ["method=a", "seed=2"],
    ]
