"""From run folders to groups: runs gathered, runs left out with the reason, comparisons refused."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from gradspike.cli.reporting import reporting_errors
from gradspike.config.compose import load_config
from gradspike.config.schema import ExperimentConfig
from gradspike.errors import ConfigError, UserError
from gradspike.runs.folder import RunFolder
from gradspike.tools.compare import escape, page_data, published, report
from gradspike.tools.compare.baselines import find_baseline
from gradspike.tools.compare.columns import spread_of
from gradspike.tools.compare.command import compare
from gradspike.tools.compare.folder import read_run
from gradspike.tools.compare.gather import gather
from gradspike.tools.compare.groups import group_runs
from gradspike.tools.compare.run import Run
from gradspike.training import run as training
from helpers.command import command, here
from helpers.limits import no_file_can_be_opened, permissions_count


@pytest.fixture
def runs(compared_runs: Path, tmp_path: Path) -> Path:
    """A copy of a run that the test may damage; without checkpoints, which no comparison reads."""
    return Path(shutil.copytree(compared_runs, tmp_path / "runs", ignore=shutil.ignore_patterns("*.ckpt")))


def folder_of(runs: Path, label: str, seed: int) -> Path:
    (found,) = runs.glob(f"*_{label}_digits_spiking_cnn_s{seed}_*")
    return found


def edit(file: Path, change: Callable[[Any], Any]) -> None:
    load, dump = (yaml.safe_load, yaml.safe_dump) if file.suffix == ".yaml" else (json.loads, json.dumps)
    value = load(file.read_text())
    change(value)
    file.write_text(dump(value))


def copied(runs: Path, label: str, seed: int, id_: str) -> Path:
    source = folder_of(runs, label, seed)
    return Path(shutil.copytree(source, source.with_name(source.name.rpartition("_")[0] + f"_{id_}")))


def set_key(folder: Path, key: str, value: Any) -> None:
    def change(config: dict[str, Any]) -> None:
        *path, last = key.split(".")
        for part in path:
            config = config[part]
        config[last] = value

    edit(folder / "config.yaml", change)


def names_and_seeds(folder: Path, **options: Any) -> dict[str, list[int]]:
    grouping = group_runs(gather([folder]).runs, **options)
    return {group.name: [run.seed for run in group.runs] for group in grouping.groups}


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


@pytest.mark.parametrize(
    ("name", "keep"), [("summary.json", None), ("confusion.json", 0.0), ("layers.json", 0.5), ("metrics.jsonl", 0.5)]
)
def test_lost_results_of_a_finished_run_are_written_again(
    compared_runs: Path, tmp_path: Path, name: str, keep: float | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that is missing, empty or cut short. Of metrics.jsonl, only the checkpoint's part can be cut back to."""
    original = folder_of(compared_runs, "mpd_agl", 0)
    run = RunFolder(Path(shutil.copytree(original, tmp_path / original.name)))
    words = ["train", f"resume={run.path}"]
    assert "is finished; nothing to do" in here(words, capsys)[1]
    file = run.path / name
    whole = file.read_bytes()
    file.unlink()
    if keep is not None:
        file.write_bytes(whole[: int(keep * len(whole))])
    code, printed, error = here(words, capsys)
    assert f"results are missing or damaged: {name}." in printed
    if name == "metrics.jsonl":
        assert code == 1, printed
        assert "metrics.jsonl" in error
        return
    assert code == 0, error
    for record in ("summary.json", "confusion.json", "layers.json", "metrics.jsonl"):
        assert (run.path / record).read_bytes() == (original / record).read_bytes(), record


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        "{}",
        '{"last": null}',
        '{"last": [{"macs": null}]}',
        '{"last": [{"macs": 1, "input": "real", "nonzero": [null]}]}',
    ],
)
def test_a_run_without_its_layers_is_named(compared_runs: Path, tmp_path: Path, content: str) -> None:
    copies = Path(shutil.copytree(compared_runs, tmp_path / "runs"))
    lost = folder_of(copies, "mpd_agl", 1)
    assert not any("energy" in note for note in report.compare(group_runs(gather([copies]).runs), (), ()).notes)
    (lost / "layers.json").write_text(content)
    notes = report.compare(group_runs(gather([copies]).runs), (), ()).notes
    assert any("Without energy" in note and lost.name in note for note in notes)


@pytest.mark.parametrize("keep", [0.0, 0.5])
def test_a_run_without_all_its_times_is_named(compared_runs: Path, tmp_path: Path, keep: float) -> None:
    copies = Path(shutil.copytree(compared_runs, tmp_path / "runs"))
    timing = folder_of(copies, "mpd_agl", 1) / "timing.jsonl"
    assert not any("timing.jsonl" in note for note in report.compare(group_runs(gather([copies]).runs), (), ()).notes)
    content = timing.read_bytes()
    timing.write_bytes(content[: int(keep * len(content))])
    notes = report.compare(group_runs(gather([copies]).runs), (), ()).notes
    assert any("timing.jsonl" in note and timing.parent.name in note for note in notes)


def test_lost_results_without_a_checkpoint(
    compared_runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    original = folder_of(compared_runs, "mpd_agl", 0)
    run = RunFolder(Path(shutil.copytree(original, tmp_path / original.name)))
    shutil.rmtree(run.checkpoints)
    words = ["train", f"resume={run.path}"]
    assert here(words, capsys)[0] == 0
    (run.path / "layers.json").unlink()
    code, _, error = here(words, capsys)
    assert code == 1
    assert "layers.json. Without a checkpoint, they cannot be written again." in error
    assert run.state() == "finished"


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


def test_tables_as_markdown_latex_and_csv(
    compared_runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outs = [tmp_path / f"table{suffix}" for suffix in (".md", ".tex", ".csv")]
    words = [word for out in outs for word in ("--out", str(out))]
    assert compare([str(compared_runs), *words]) == 0
    printed = capsys.readouterr().out
    comparison = report.compare(group_runs(gather([compared_runs]).runs), (), ())
    row = next(row for row in comparison.rows if row.group.name == "mpd_agl")
    shown = spread_of(row.final, 100)
    markdown, latex, comma = (out.read_text() for out in outs)
    assert shown in printed
    assert f"| `mpd_agl` | {shown} |" not in markdown, "the ReLU twin has one seed, so n is no constant"
    assert f"| `mpd_agl` | 3 | {shown} |" in markdown
    assert r"mpd\_agl & " + shown.replace("±", r"$\pm$") in latex
    assert latex.count(r"\\") == 1 + len(comparison.rows)
    header, *lines = (line.split(",") for line in comma.splitlines())
    values = dict(zip(header, next(line for line in lines if line[0] == "mpd_agl"), strict=True))
    assert float(values["final_mean"]) == row.final.mean
    assert values["seeds"] == "0 1 2"
    assert "too few seeds" in " ".join(printed.split())


def test_latex_escapes() -> None:
    assert escape.latex("a_b & 5 % ± \\") == r"a\_b \& 5 \% $\pm$ \textbackslash{}"


def test_published_numbers_stand_beside_equal_settings_only(compared_runs: Path) -> None:
    def run_with(*words: str) -> Run:
        config = load_config(["method=mpd_agl", "dataset=cifar10", *words]).plain()
        base = gather([compared_runs]).runs[0]
        return Run(base.id, base.path, "files", config, base.summary, base.epochs, sessions=base.sessions)

    same, shorter = run_with("time_steps=2"), run_with("time_steps=2", "trainer.max_epochs=3")
    (row,) = report.compare(group_runs([same]), (), ()).rows
    assert row.published is not None
    assert row.published.accuracy == 96.18
    entries = published.published_rows([row.group])
    assert {(entry["accuracy"], tuple(entry["groups"])) for entry in entries} == {(96.18, (0,)), (96.35, ())}
    (row,) = report.compare(group_runs([shorter]), (), ()).rows
    assert row.published is None
    assert all(
        "trainer.max_epochs=3 instead of 150" in entry["differs"] for entry in published.published_rows([row.group])
    )


def test_wandb_files_alone(
    tiny_config: Callable[..., ExperimentConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    run, summary = training.train(tiny_config("logger=wandb", "trainer.max_epochs=1"), None, ["test"])
    beside = gather([run.path.parent])
    assert [one.source for one in beside.runs] == ["files"], "its own folder knows more"
    shutil.move(run.path / "wandb", tmp_path / "alone")
    (read,) = gather([tmp_path / "alone"]).runs
    assert (read.source, read.id, read.label, read.seed) == ("wandb", run.id, "mpd_agl", 0)
    assert read.final("last") == pytest.approx(summary["test"]["last"]["accuracy"])
    assert read.validates
    assert [record["epoch"] for record in read.epochs] == [0]
    assert {key: read.config[key] for key in ("dataset", "method")} == {
        key: json.loads(json.dumps(run.config().plain()[key])) for key in ("dataset", "method")
    }
    both = gather([run.path.parent, tmp_path / "alone"])
    assert len(both.runs) == 1
    (file,) = (tmp_path / "alone").rglob("*.wandb")
    file.write_bytes(file.read_bytes()[:200])
    (told,) = gather([tmp_path / "alone"]).excluded
    assert "W&B" in told.reason


def test_a_sweep_counts_its_trials_alone(runs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    (folder / "trials").mkdir(parents=True)
    (folder / "sweep.json").write_text("{}")
    shutil.move(runs, folder / "runs")
    kept = sorted((folder / "runs").glob("*_fixed_sg_*"))
    trials: list[dict[str, Any]] = [{"state": "finished", "run": f"runs/{run.name}"} for run in kept]
    trials.append({"state": "failed", "run": None, "reason": "no memory"})
    trials.append({"state": "running", "run": None})  # its process and its runner were killed
    for number, trial in enumerate(trials):
        (folder / "trials" / str(number)).mkdir()
        (folder / "trials" / str(number) / "trial.json").write_text(json.dumps(trial))
    from gradspike.tools.compare.sweeps import gather_sweep

    found = gather_sweep(folder)
    assert {run.label for run in found.runs} == {"fixed_sg"}
    reasons = [one.reason for one in found.excluded]
    assert reasons.count("belongs to no trial of the sweep") == 4
    assert "failed: no memory" in reasons
    assert "not finished: it was killed" in reasons
    with pytest.raises(ConfigError, match=r"no sweep\.json"):
        gather_sweep(tmp_path)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 2, "Name at least one folder"),
        (["nowhere"], 1, "unknown file or folder 'nowhere'"),
        (["{empty}"], 1, "found no runs"),
        (["{empty}", "--out", "x.pdf"], 2, ".html"),
        (["{empty}", "--baselin", "x"], 2, "Did you mean '--baseline'?"),
        (["{empty}", "--allow", "cod"], 2, "Did you mean 'code'?"),
        (["{empty}", "--out", "nowhere/x.html"], 2, "unknown folder 'nowhere'"),
    ],
)
def test_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, said: str) -> None:
    given = [word.replace("{empty}", str(tmp_path)) for word in words]
    assert reporting_errors(lambda: compare(given)) == code
    assert said in capsys.readouterr().err


def test_the_command_itself() -> None:
    assert "--baseline NAME" in command("compare", "--help").stdout
    result = command("compare", "nowhere")
    assert (result.returncode, result.stderr) == (1, "Error: unknown file or folder 'nowhere'.\n")


def test_mistakes_in_where(compared_runs: Path) -> None:
    with pytest.raises(ConfigError, match=r"Did you mean 'dataset\.name'"):
        compare([str(compared_runs), "--where", "dataset.nam=digits"])
    with pytest.raises(ConfigError, match="The runs have method=fixed_sg, mpd_agl, relu"):
        compare([str(compared_runs), "--where", "method=x"])
    with pytest.raises(UserError, match="found no runs"):
        compare([str(Path(__file__).parent)])


def test_help_and_refusals_need_no_torch(compared_runs: Path) -> None:
    script = (
        "import sys\nfrom gradspike.cli.reporting import reporting_errors\n"
        "from gradspike.tools.compare.command import compare\n"
        f"code = reporting_errors(lambda: compare([{str(compared_runs)!r}]))\n"
        "assert not {'torch', 'lightning', 'wandb', 'matplotlib', 'optuna'} & set(sys.modules), 'heavy'\n"
        "sys.exit(code)"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=100)
    assert result.returncode == 0, result.stderr


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
