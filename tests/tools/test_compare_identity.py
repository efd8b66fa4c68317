"""Which folders are the same run: copies, links, repeated seeds, runs trained again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gradspike.tools.compare.gather import gather
from gradspike.tools.compare.groups import group_runs
from helpers.compared import copied, edit, folder_of, names_and_seeds


def test_the_same_run_twice_counts_once(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    original = folder_of(runs, "mpd_agl", 1)
    shutil.copytree(original, tmp_path / "elsewhere" / original.name)
    (runs / "loop").symlink_to(runs, target_is_directory=True)
    found = gather([runs, tmp_path / "elsewhere", runs])
    assert len(found.runs) == 7
    (told,) = found.excluded
    assert "is a copy of" in told.reason


def test_a_repeated_seed_is_listed_and_the_newest_run_counts(runs: Path) -> None:
    first = folder_of(runs, "mpd_agl", 1)
    again = copied(runs, "mpd_agl", 1, "ffffffff")
    edit(again / "environment.json", lambda sessions: sessions[0].update(started="2999-01-01T00:00:00+00:00"))
    edit(again / "summary.json", lambda summary: summary["test"]["last"].update(accuracy=0.125))
    grouping = group_runs(gather([runs]).runs)
    chosen = next(group for group in grouping.groups if group.name == "mpd_agl").runs[1]
    assert chosen.path == str(again)
    (told,) = grouping.excluded
    assert told.path == str(first)
    assert f"{again} is a newer run of mpd_agl, seed 1" in told.reason
    assert "DIFFERENT accuracy" in told.reason


def test_the_newest_start_is_found_whatever_the_offset_of_the_clock(runs: Path) -> None:
    """Summer time ends between the two starts."""
    first, again = folder_of(runs, "mpd_agl", 1), copied(runs, "mpd_agl", 1, "ffffffff")
    for folder, started in ((first, "2026-10-25T02:50:00+02:00"), (again, "2026-10-25T02:10:00+01:00")):
        edit(folder / "environment.json", lambda sessions, text=started: sessions[0].update(started=text))
    (told,) = group_runs(gather([runs]).runs).excluded
    assert told.path == str(first)


def test_a_damaged_record_of_sessions_is_not_read(runs: Path) -> None:
    (folder_of(runs, "mpd_agl", 1) / "environment.json").write_text('[1, "started", null]')
    assert len(gather([runs]).runs) == 7


def renamed(runs: Path, label: str, seed: int, name: str) -> Path:
    return folder_of(runs, label, seed).rename(runs / name)


def test_folders_with_the_same_ending_are_different_runs(runs: Path) -> None:
    """Folder names do not identify runs."""
    for seed in (0, 1, 2):
        renamed(runs, "fixed_sg", seed, f"sg_run{seed}")
        renamed(runs, "mpd_agl", seed, f"mpd_run{seed}")
    renamed(runs, "relu", 0, "run0")
    found = gather([runs])
    assert len(found.runs) == 7
    assert found.excluded == ()
    assert names_and_seeds(runs) == {"fixed_sg": [0, 1, 2], "mpd_agl": [0, 1, 2], "relu": [0]}


def test_a_copy_is_recognised_by_its_content(runs: Path) -> None:
    original = folder_of(runs, "mpd_agl", 1)
    copy = Path(shutil.copytree(original, runs / "backup of the good one"))
    found = gather([runs])
    assert len(found.runs) == 7
    (told,) = found.excluded
    assert {told.path} | {run.path for run in found.runs} >= {str(copy), str(original)}
    assert told.reason.endswith("; counted once")
    edit(copy / "summary.json", lambda summary: summary["test"]["last"].update(accuracy=0.125))
    (told,) = gather([runs]).excluded
    assert "DIFFERENT test accuracy" in told.reason


def test_a_run_trained_again_is_no_copy_of_the_first(runs: Path) -> None:
    """Same settings, seed and numbers, but started at another time: two runs that reproduce each other."""
    first = folder_of(runs, "mpd_agl", 1)
    again = Path(shutil.copytree(first, runs / "again"))
    edit(again / "environment.json", lambda sessions: sessions[0].update(started="2999-01-01T00:00:00+00:00"))
    grouping = group_runs(gather([runs]).runs)
    (told,) = grouping.excluded
    assert "same accuracy" in told.reason
    assert told.path == str(first)


def test_a_link_to_a_run_is_the_run(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "linked").symlink_to(folder_of(runs, "mpd_agl", 1), target_is_directory=True)
    assert len(gather([runs, tmp_path / "linked"]).runs) == 7
    monkeypatch.chdir(folder_of(runs, "relu", 0))
    assert len(gather([Path(), runs]).runs) == 7
