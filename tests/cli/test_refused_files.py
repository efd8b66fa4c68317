"""Files and folders that the system refuses: one sentence with path and reason, in every command."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.command import here
from helpers.limits import permissions_count


@pytest.fixture
def closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that must not be entered; the working folder is the one around it."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "closed"
    (folder / "r").mkdir(parents=True)
    folder.chmod(0)
    with permissions_count():
        yield folder
    folder.chmod(0o700)


@pytest.mark.parametrize(
    "words",
    [
        ["curves", "run=closed/r"],
        ["describe", "run=closed/r"],
        ["evaluate", "run=closed/r"],
        ["landscape", "run=closed/r"],
        ["export", "run=closed/r", "format=pt2"],
        ["compare", "closed/r"],
        ["compare", "--sweep", "closed/r"],
        ["sweep", "closed/r.yaml"],
        ["train", "--config-dir", "closed"],
        ["train", "--config-dir", "closed/r"],
        ["train", "init_from=closed/r"],
        ["train", "resume=closed/r"],
        ["train", "resume=auto", "runs_dir=closed"],
        ["train", "dataset=image_folder", "dataset.classes=2", "dataset.image_size=8", "dataset.source=closed/r"],
        ["prepare", "dataset=digits", "data_dir=closed/r/x"],
        ["slurm-script", "dataset=digits", "out=closed/r.sh"],
    ],
)
def test_a_folder_that_must_not_be_entered(closed: Path, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, error = here(words, capsys)
    assert (code, out) == (1, "")
    assert error.startswith("Error: ")
    assert "closed" in error
    assert error.endswith(": Permission denied.\n")


def test_a_path_that_is_too_long(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, error = here(["curves", f"run={'x' * 300}"], capsys)
    assert (code, error.endswith("x/config.yaml: File name too long.\n")) == (1, True)


def test_a_folder_of_runs_that_cannot_be_read_is_not_an_empty_one(
    closed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, error = here(["compare", "."], capsys)
    assert code == 1
    assert "closed: the folder cannot be read (Permission denied)" in error
