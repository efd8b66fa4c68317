"""Values and names with characters that are special in Hydra's grammar, in URLs or in SQL."""

from __future__ import annotations

import errno
import os
import shlex
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from gradspike.config.compose import load_config
from gradspike.errors import ConfigError, UserError
from gradspike.tools.sweep import words as sweep_words
from gradspike.tools.sweep.file import Metric, read
from gradspike.tools.sweep.folder import SweepFolder
from gradspike.tools.sweep.proposals import Proposal, check_all, proposals
from gradspike.tools.sweep.storage import check_url, hidden
from gradspike.tools.sweep.study import Study, build_pruner
from gradspike.tools.sweep.words import written_as
from helpers.command import here

METRIC = Metric(name="val/accuracy", goal="maximize")
NAMES = [
    "a?b", "a#b", "100%", "%41", "a b", "it's", '"q"', "{x}", "[b]", "é 日", "a&b=c", "a;b", "a\\b", "a:b@c",
    "?mode=ro",
]  # fmt: skip
SYNTAX = ("[b]", "{x}", '"q"')
"""A list, a mapping and a quoted word in Hydra's grammar. A sweep file may use them as such, as with W&B's agent."""
TEXTS = [
    *(name for name in NAMES if name not in SYNTAX),
    "a,b", "x=y", "x == y", "a[1]", "(x)", "${x}", "choice(a,b)", "range(1,3)", "glob(*)", " a ", "#c", "~d", "!e",
    "<b>", "`f`", "^g", "a\nb", "'", '"', "a'b\"c", "\\", "[a", "{a", "a]", "*", "|", "~", "a: b",
]  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_hydra_reads_text_as_it_is_in_the_file(text: str) -> None:
    assert OverridesParser.create().parse_override(written_as("data_dir", text)).value() == text


@pytest.mark.parametrize(
    ("value", "word"),
    [
        (0.1, "x=0.1"), (1e-05, "x=1e-05"), (3, "x=3"), (True, "x=True"), ([1, 2], "x=[1, 2]"), ("psg", "x=psg"),
        ("1e3", "x=1e3"), ("null", "x=null"), ("true", "x=true"), ("a/b:c", "x=a/b:c"), (["a,b"], "x=['a,b']"),
    ],
)  # fmt: skip
def test_what_hydra_can_read_is_what_wandbs_agent_writes(value: Any, word: str) -> None:
    assert written_as("x", value) == f"x={value}" == word


def sweep_file(folder: Path, **parameters: Any) -> Path:
    whole = {
        "program": "src/train.py",
        "method": "grid",
        "parameters": parameters,
        "command": ["${env}", "${interpreter}", "${program}", "${args_no_hyphens}"],
    }
    file = folder / "some.yaml"
    file.write_text(yaml.safe_dump(whole, sort_keys=False, allow_unicode=True))
    return file


def test_trials_and_their_commands_keep_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = [text for text in TEXTS if text != "~" and "${" not in text and "\n" not in text]
    path = sweep_file(tmp_path, data_dir={"values": texts}, method={"value": "psg"})
    file = read(path)
    words = sweep_words.build(file, [])
    configs = check_all(file, words, proposals(file, words, None, 0))
    assert [config.data_dir for config in configs] == texts
    code, printed, _ = here(["sweep", str(path), "--dry-run", f"folder={tmp_path / 'a, (b) = [c]?'}"], capsys)
    assert code == 0
    commands = [shlex.split(line) for line in printed.splitlines()]
    found = [load_config(line[line.index("train") + 1 :]) for line in commands]
    assert [config.data_dir for config in found] == texts
    assert {config.runs_dir for config in found} == {str(tmp_path / "a, (b) = [c]?" / "runs")}


@pytest.mark.parametrize("name", [*NAMES, os.fsdecode(b"\xff")])
def test_a_study_lies_in_its_folder_whatever_it_is_called(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    folder.mkdir()
    study = Study(folder / "study.db", name.encode("utf-8", "replace").decode(), METRIC, build_pruner(None, None, 1), 0)
    study.fill([Proposal("a", {"seed": 0})], {})
    study.close()
    assert [path.name for path in folder.iterdir()] == ["study.db"]
    assert [path.name for path in tmp_path.iterdir()] == [name]
    again = Study(folder / "study.db", name.encode("utf-8", "replace").decode(), METRIC, build_pruner(None, None, 1), 0)
    assert [trial.user_attrs["key"] for trial in again.trials()] == ["a"]


def test_a_renamed_sweep_keeps_its_study(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path / "before")
    folder.create("before", "study.db")
    Study(folder.path / "study.db", folder.study, METRIC, build_pruner(None, None, 1), 0).fill(
        [Proposal("a", {"seed": 0})], {}
    )
    moved = SweepFolder(folder.path.rename(tmp_path / "after"))
    moved.create("after", "study.db")
    assert (moved.id, moved.study) == (folder.id, "before")
    study = Study(moved.path / "study.db", moved.study, METRIC, build_pruner(None, None, 1), 0)
    assert [trial.user_attrs["key"] for trial in study.trials()] == ["a"]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sqlite:///X/what?.db", "unknown SQLite option '.db' after ?"),
        ("sqlite:///X/a?b=c.db", "unknown SQLite option 'b'"),
        ("sqlite:///X/{x}.db", "must not contain { or }"),
        ("study.db", "must be a URL such as sqlite:///study.db"),
        ("/tmp/study.db", "must be a URL"),
    ],
)
def test_a_url_that_would_be_read_as_another_is_refused(url: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        check_url(url.replace("X", str(tmp_path)))
    assert said in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_urls_with_options_are_the_users(tmp_path: Path) -> None:
    for url in (
        "sqlite://",
        "sqlite:///study.db?timeout=5",
        "postgresql://me:pw@host/name?sslmode=require",
        "mysql://h/d",
    ):
        check_url(url)
    assert hidden("postgresql://me:p@w@host/x") == "postgresql://me:***@host/x"
    assert hidden("postgresql:///x?user=me&password=secret&sslmode=no") == (
        "postgresql:///x?user=me&password=***&sslmode=no"
    )
    with pytest.raises(UserError, match="cannot be used"):
        Study(f"sqlite:///{tmp_path}/no/such/folder/study.db", "s", METRIC, build_pruner(None, None, 1), 0)
    (tmp_path / "text.db").write_text("this is no database, and long enough to be told from an empty one" * 20)
    with pytest.raises(UserError, match="file is not a database"):
        Study(tmp_path / "text.db", "s", METRIC, build_pruner(None, None, 1), 0)


def test_a_file_system_without_locks_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("gradspike.locks.fcntl.flock", unsupported)
    with pytest.raises(UserError, match="a sweep needs file locks, which this file system does not support"):
        SweepFolder(tmp_path / "s").create("s", "study.db")
    assert not (tmp_path / "s").exists()


def test_sql_stays_text(tmp_path: Path) -> None:
    name = "x'; DROP TABLE studies; --"
    study = Study(tmp_path / "study.db", name, METRIC, build_pruner(None, None, 1), 0)
    study.fill([Proposal(name, {"data_dir": name})], {"method": name})
    assert study.definition() == {"method": name}
    study.close()
    with sqlite3.connect(tmp_path / "study.db") as database:
        assert database.execute("SELECT study_name FROM studies").fetchall() == [(name,)]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)),
        sqlite3.OperationalError("database or disk is full"),
    ],
    ids=str,
)
def test_a_full_disk_ends_a_sweep_with_one_sentence(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise error

    monkeypatch.setattr("gradspike.tools.sweep.study.Study.fill", full)
    file = sweep_file(tmp_path, seed={"values": [0]})
    code, _, said = here(["sweep", str(file), f"folder={tmp_path / 's'}"], capsys)
    assert code == 1
    assert said == (
        f"Error: {tmp_path / 's'}: the disk is full. Free some space, then type the same command again to continue.\n"
    )
