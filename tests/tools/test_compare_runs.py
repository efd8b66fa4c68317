"""From run folders to groups: runs gathered, runs left out with the reason, settings that must not be compared."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gradspike.cli.reporting import reporting_errors
from gradspike.errors import ConfigError
from gradspike.runs.folder import RunFolder
from gradspike.tools.compare import page_data, report
from gradspike.tools.compare.baselines import find_baseline
from gradspike.tools.compare.command import compare
from gradspike.tools.compare.folder import read_run
from gradspike.tools.compare.gather import gather
from gradspike.tools.compare.groups import group_runs
from gradspike.training import run as training
from helpers.compared import copied, edit, folder_of, names_and_seeds
from helpers.limits import no_file_can_be_opened, permissions_count


def set_key(folder: Path, key: str, value: Any) -> None:
    def change(config: dict[str, Any]) -> None:
        *path, last = key.split(".")
        for part in path:
            config = config[part]
        config[last] = value

    edit(folder / "config.yaml", change)


def test_methods_are_groups_of_seeds(compared_runs: Path) -> None:
    assert names_and_seeds(compared_runs) == {"fixed_sg": [0, 1, 2], "mpd_agl": [0, 1, 2], "relu": [0]}


def test_the_numbers_are_those_of_the_summaries(compared_runs: Path) -> None:
    comparison = report.compare(group_runs(gather([compared_runs]).runs), (), ())
    assert comparison.baseline == "fixed_sg"
    rows = {row.group.name: row for row in comparison.rows}
    found: dict[str, dict[int, Any]] = {}
    for file in compared_runs.glob("*/summary.json"):
        summary = json.loads(file.read_text())
        found.setdefault(summary["method"], {})[summary["seed"]] = summary
    for name, summaries in found.items():
        values = [one["test"]["last"]["accuracy"] for one in summaries.values()]
        assert rows[name].final.mean == pytest.approx(np.mean(values))
        best = rows[name].best
        assert best is not None
        assert best.mean == pytest.approx(np.mean([one["test"]["best"]["accuracy"] for one in summaries.values()]))
        assert rows[name].parameters == summaries[0]["parameters"]
    pair = rows["mpd_agl"].paired
    assert pair is not None
    accuracy = {name: {seed: one["test"]["last"]["accuracy"] for seed, one in by.items()} for name, by in found.items()}
    assert pair.differences == pytest.approx([accuracy["mpd_agl"][s] - accuracy["fixed_sg"][s] for s in (0, 1, 2)])
    assert rows["relu"].paired is not None
    assert rows["relu"].paired.seeds == (0,)
    assert rows["relu"].firing_rate is None
    energy, twin = rows["fixed_sg"].energy, rows["relu"].energy
    assert energy is not None
    assert twin is not None
    assert 0 < energy.mean < twin.mean
    assert rows["fixed_sg"].seconds is not None
    assert rows["fixed_sg"].memory is not None
    assert 100 < rows["fixed_sg"].memory.mean < 20_000


def test_the_confusion_is_the_accuracy(compared_runs: Path) -> None:
    for folder in compared_runs.glob("*_s0_*"):
        pairs = json.loads((folder / "confusion.json").read_text())
        summary = json.loads((folder / "summary.json").read_text())
        for which in ("last", "best"):
            total = sum(count for _, _, count in pairs[which])
            right = sum(count for label, predicted, count in pairs[which] if label == predicted)
            assert right / total == pytest.approx(summary["test"][which]["accuracy"])


def test_a_resumed_run_records_the_same(compared_runs: Path, tmp_path: Path) -> None:
    original = folder_of(compared_runs, "mpd_agl", 0)
    run = RunFolder(Path(shutil.copytree(original, tmp_path / original.name)))
    for name in ("summary.json", "confusion.json", "layers.json"):
        (run.path / name).unlink()
    run.set_status("interrupted")
    training.train(run.config(), run, ["test"])
    for name in ("summary.json", "confusion.json", "layers.json", "metrics.jsonl"):
        assert (run.path / name).read_bytes() == (original / name).read_bytes(), name


def not_a_number(folder: Path) -> None:
    edit(folder / "summary.json", lambda summary: summary["test"]["last"].update(loss=None))


def diverged_on_the_way(folder: Path) -> None:
    file = folder / "metrics.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    next(line for line in lines if "train/loss" in line)["train/loss"] = None
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))


def killed(folder: Path) -> None:
    edit(folder / "status.json", lambda status: status.update(state="running"))
    (folder / "summary.json").unlink()


def stopped(folder: Path) -> None:
    edit(folder / "status.json", lambda status: status.update(state="interrupted", reason="Stopped by SIGTERM"))


def cut(folder: Path) -> None:
    text = (folder / "metrics.jsonl").read_text()
    (folder / "metrics.jsonl").write_text(text[: len(text) - 40])


def half_summary(folder: Path) -> None:
    (folder / "summary.json").write_text((folder / "summary.json").read_text()[:80])


def old_format(folder: Path) -> None:
    (folder / "summary.json").write_text(json.dumps({"accuracy": 0.9}))


def nothing_but_a_start(folder: Path) -> None:
    (folder / "config.yaml").unlink()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (not_a_number, "test loss after the last epoch is not a number"),
        (diverged_on_the_way, "training loss is missing or not a number"),
        (killed, "it was killed (2 of 2 epochs done)"),
        (stopped, "interrupted, Stopped by SIGTERM"),
        (cut, "metrics.jsonl is half written"),
        (half_summary, "summary.json is half written"),
        (old_format, "its format is older"),
        (nothing_but_a_start, "no config.yaml"),
    ],
)
def test_a_bad_run_is_listed_and_not_averaged(runs: Path, spoil: Callable[[Path], None], reason: str) -> None:
    bad = folder_of(runs, "mpd_agl", 1)
    spoil(bad)
    found = gather([runs])
    assert [(one.path, reason in one.reason) for one in found.excluded] == [(str(bad), True)]
    assert names_and_seeds(runs)["mpd_agl"] == [0, 2]


@pytest.mark.parametrize("name", ["", "config.yaml", "status.json", "metrics.jsonl", "summary.json"])
def test_a_run_that_must_not_be_read_is_listed_with_the_reason(runs: Path, name: str) -> None:
    bad = folder_of(runs, "mpd_agl", 1)
    (bad / name).chmod(0)
    with permissions_count():
        found = gather([runs])
    (bad / name).chmod(0o700)
    what = f"its {name}" if name else "the folder"
    assert [(one.path, one.reason) for one in found.excluded] == [
        (str(bad), f"{what} cannot be read (Permission denied)")
    ]


def test_a_lack_of_open_files_damages_no_run(runs: Path) -> None:
    with no_file_can_be_opened(), pytest.raises(OSError, match="Too many open files"):
        read_run(folder_of(runs, "mpd_agl", 1))


def test_a_running_run_is_distinguished_from_a_killed_one(runs: Path) -> None:
    folder = folder_of(runs, "mpd_agl", 1)
    killed(folder)
    run = RunFolder(folder)
    run.lock()
    try:
        assert "still running" in gather([runs]).excluded[0].reason
    finally:
        run.unlock()


@pytest.mark.parametrize(
    ("key", "value", "kind"),
    [
        ("dataset.name", "digits_events", "data"),
        ("dataset.normalize", "unit", "data"),
        ("dataset.batch_size", 32, "budget"),
        ("trainer.max_epochs", 7, "budget"),
    ],
)
def test_what_must_not_be_compared_is_refused(runs: Path, key: str, value: Any, kind: str) -> None:
    other = folder_of(runs, "mpd_agl", 1)
    set_key(other, key, value)
    found = gather([runs]).runs
    with pytest.raises(ConfigError) as refusal:
        group_runs(found)
    said = str(refusal.value)
    assert f"--allow {kind}" in said
    assert f"{key} is" in said
    assert str(other) in said
    groups = names_and_seeds(runs, allow=frozenset([kind]))
    apart = [seeds for name, seeds in groups.items() if name.startswith("mpd_agl, ")]
    assert sorted(apart) == [[0, 2], [1]], "even when it is allowed, it is no part of the others' mean"


def test_another_split_is_refused(runs: Path) -> None:
    for number, folder in enumerate(sorted(runs.glob("2*"))):
        set_key(folder, "dataset.val_fraction", 0.1 * (number > 3))
    with pytest.raises(ConfigError, match="--allow split"):
        group_runs(gather([runs]).runs)


def test_other_code_is_refused(runs: Path) -> None:
    other = folder_of(runs, "mpd_agl", 1)
    edit(other / "environment.json", lambda sessions: sessions[0].update(source="000000000000"))
    found = gather([runs]).runs
    with pytest.raises(ConfigError, match=r"source 000000000000 in 1 run .*\n.*--allow code"):
        group_runs(found)
    grouping = group_runs(found, frozenset(["code"]))
    assert any("2 versions of the code" in note for note in grouping.notes)
    assert compare([str(runs), "--where", "code=" + str(found[0].code).split()[1]]) == 0
    # Without a digest, the commit and whether there were uncommitted changes count.
    for folder in runs.glob("2*"):
        git = {"commit": "abc", "changed_files": ["x.py"] if folder == other else []}
        edit(folder / "environment.json", lambda sessions, git=git: sessions[0].update(source=None, git=git))
    with pytest.raises(ConfigError, match="with uncommitted changes"):
        group_runs(gather([runs]).runs)


def test_what_was_swept_makes_groups_and_finds_its_baseline(runs: Path) -> None:
    for folder in runs.glob("2*"):
        set_key(folder, "optimizer.lr", 0.05)
    for label in ("fixed_sg", "mpd_agl"):
        set_key(folder_of(runs, label, 2), "optimizer.lr", 0.5)
        set_key(copied(runs, label, 1, f"aaaaaaa{label[0]}"), "optimizer.lr", 0.5)
    grouping = group_runs(gather([runs]).runs)
    names = {group.name: [run.seed for run in group.runs] for group in grouping.groups}
    assert names["mpd_agl, lr=0.5"] == [1, 2]
    assert names["fixed_sg, lr=0.05"] == [0, 1]
    assert grouping.swept == ("optimizer.lr",)
    base = find_baseline(grouping, ["fixed_sg"])
    assert base is not None
    assert base.name == "fixed_sg"
    assert base.of["mpd_agl, lr=0.5"].name == "fixed_sg, lr=0.5"
    comparison = report.compare(grouping, ["lr=0.05", "method=fixed_sg"], ())
    assert comparison.baseline == "lr=0.05"
    (crossed,) = comparison.interactions
    assert (crossed.group.name, crossed.reference.name) == ("mpd_agl, lr=0.5", "fixed_sg, lr=0.5")
    data = page_data.page_data(report.compare(grouping, (), ()), "title", "command", "now")
    (sweep,) = data["sweeps"]
    assert sweep["key"] == "optimizer.lr"
    assert {line["name"]: [point["value"] for point in line["points"]] for line in sweep["lines"]} == {
        "fixed_sg": ["0.05", "0.5"],
        "mpd_agl": ["0.05", "0.5"],
    }


def test_an_unknown_baseline_names_the_nearest(compared_runs: Path) -> None:
    grouping = group_runs(gather([compared_runs]).runs)
    with pytest.raises(ConfigError, match=r"unknown method or group 'mpd_alg'\. Did you mean 'mpd_agl'\? Allowed: "):
        report.compare(grouping, ["mpd_alg"], ())


def test_a_method_of_ones_own_has_a_version_too(runs: Path) -> None:
    def version(label: str, seed: int, digest: str) -> None:
        file = folder_of(runs, label, seed) / "environment.json"
        edit(file, lambda sessions: sessions[0].update(modules={"my_lab.annealed": digest}))

    for seed in (0, 1, 2):
        version("mpd_agl", seed, "aaaa")
    group_runs(gather([runs]).runs)  # the others have no such module, which is no difference
    version("mpd_agl", 1, "bbbb")
    with pytest.raises(ConfigError, match=r"my_lab\.annealed is aaaa in 2 runs, bbbb in 1 run"):
        group_runs(gather([runs]).runs)


def test_the_digest_of_a_module_changes_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gradspike.runs.code_version import module_digests

    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "lab_of_mine.py").write_text("x = 1\n")
    import lab_of_mine  # type: ignore[import-not-found]

    before = module_digests(["lab_of_mine", "not_imported"])
    assert list(before) == ["lab_of_mine"]
    Path(lab_of_mine.__file__).write_text("x = 2\n")
    assert module_digests(["lab_of_mine"]) != before


def test_without_locks_a_run_may_still_be_running(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    folder = folder_of(runs, "mpd_agl", 1)
    killed(folder)
    (folder / ".lock").touch()
    edit(folder / "status.json", lambda status: status.update(host="another-machine"))
    assert "is still running on another-machine" in gather([runs]).excluded[0].reason
    monkeypatch.setattr("gradspike.locks.fcntl.flock", unsupported)
    assert "it is still running, or was killed" in gather([runs]).excluded[0].reason
    monkeypatch.undo()
    (folder / ".lock").unlink()
    (folder / ".lock").mkdir()  # as a lock file that this user may not read
    assert "it is still running, or was killed" in gather([runs]).excluded[0].reason


def test_runs_that_cannot_be_compared_are_all_counted(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = folder_of(runs, "mpd_agl", 1)
    killed(source)
    for number in range(23):
        shutil.copytree(source, runs / "bad" / f"run{number}")
    assert reporting_errors(lambda: compare([str(runs / "bad")])) == 1
    said = capsys.readouterr().err
    assert said.count("it was killed") == 20
    assert "and 3 more" in said
