"""Counts in messages, messages about unknown names and paths, and words for a shell."""

import io
import os
import subprocess
from pathlib import Path

import pytest

from gradspike.errors import unknown, unknown_path
from gradspike.shown import counted, expanded, listed, shell_words


@pytest.mark.parametrize(
    ("number", "nouns", "text"),
    [
        (0, ("file",), "0 files"),
        (1, ("file",), "1 file"),
        (1234, ("file",), "1,234 files"),
        (1, ("class", "classes"), "1 class"),
        (2, ("class", "classes"), "2 classes"),
    ],
)
def test_counted(number: int, nouns: tuple[str, ...], text: str) -> None:
    assert counted(number, *nouns) == text


def test_unknown_names_what_is_allowed() -> None:
    assert unknown("method", "lsgg", ["psg", "lsg"]) == "unknown method 'lsgg'. Did you mean 'lsg'? Allowed: lsg, psg"
    assert unknown("method", "xyz", []) == "unknown method 'xyz'."


def test_unknown_path_names_the_closest_one(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    assert unknown_path("folder", tmp_path / "rnus") == (
        f"unknown folder '{tmp_path}/rnus'. Did you mean '{tmp_path}/runs'?"
    )
    assert unknown_path("file", tmp_path / "no" / "file") == f"unknown file '{tmp_path}/no/file'."


def test_a_folder_whose_name_starts_with_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Path.expanduser ends with a traceback."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expanded("~/a b") == tmp_path / "a b"
    assert expanded("~nobody-of-this-name/a") == Path("~nobody-of-this-name/a")
    assert expanded(Path("a/~/b")) == Path("a/~/b")


def test_a_list_that_is_cut_says_how_many_are_missing() -> None:
    assert listed(["a"]) == "a"
    assert listed(map(str, range(3)), 3) == "0, 1, 2"
    assert listed((f"c{number}" for number in range(1244)), 2) == "c0, c1 and 1,242 more"
    assert listed([]) == ""


@pytest.mark.parametrize(
    "word", ["plain", "it's $HOME", "two\nlines", "\x1b[31m\\'\"", "é 日本", "\x1b0f", os.fsdecode(b"a\xff\xc3")]
)
def test_words_for_a_shell_are_printable_and_exact(word: str) -> None:
    text = shell_words(["printf", "%s", word])
    assert text.isprintable()
    done = subprocess.run(["bash", "-c", text], capture_output=True, check=True)
    assert done.stdout == os.fsencode(word)


@pytest.mark.parametrize("word", ["é 日本", "it's 😀\\", os.fsdecode(b"\xe9\xff"), "$HOME é"])
def test_words_for_a_shell_are_exact_where_the_output_is_ascii(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    text = shell_words(["printf", "%s", word])
    assert text.isascii()
    done = subprocess.run(["bash", "-c", text], capture_output=True, check=True)
    assert done.stdout == os.fsencode(word)
