"""`gradspike compare`: tables in three formats, published numbers, W&B's files, and mistakes on the command line."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gradspike.cli.reporting import reporting_errors
from gradspike.config.compose import load_config
from gradspike.config.schema import ExperimentConfig
from gradspike.errors import ConfigError, UserError
from gradspike.tools.compare import escape, published, report
from gradspike.tools.compare.columns import spread_of
from gradspike.tools.compare.command import compare
from gradspike.tools.compare.gather import gather
from gradspike.tools.compare.groups import group_runs
from gradspike.tools.compare.run import Run
from gradspike.training import run as training
from helpers.command import command


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
