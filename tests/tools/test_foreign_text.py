"""Names, paths and labels that look like markup, a formula or code are printed and written unchanged."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import re
import shlex
import shutil
from pathlib import Path

import pytest
import yaml
from rich.table import Table

from gradspike.terminal.tables import console
from helpers.browser import CHROMIUM, Browser
from helpers.command import command, here

MARKUP = ["runs [final]", "[/b]", "[bold]x[/bold]", "[link=http://x]", ":bug: a", "[red", "a\\[b]"]


@pytest.mark.parametrize("text", MARKUP)
def test_nothing_is_markup_at_the_terminal(text: str) -> None:
    out = console()
    out.file = io.StringIO()
    table = Table(title=f"title {text}", title_justify="left", caption=f"caption {text}")
    table.add_column(f"column {text}")
    table.add_row(f"cell {text}")
    out.print(table)
    out.print(f"line {text}", soft_wrap=True)
    printed = out.file.getvalue()
    for place in ("title", "caption", "column", "cell", "line"):
        assert f"{place} {text}" in printed


NAMES = [
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "[b]bold[/b]",
    "a|b`c`",
    "=1+1",
    "@SUM(A1)",
    "-2",
    "[2pt] x",
    "a_b & 5 % # ~ ^ \\ {} $x$",
    "a--b, \"q\" 'r'",
    "line\nbreak\tand\x1b[31m",
    "${oc.env:HOME}",
    "é 日本 :bug:",
]


@pytest.fixture(scope="module")
def named_runs(compared_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run for each name, with that name as method label and folder."""
    source = next(compared_runs.glob("*_mpd_agl_*_s0_*"))
    folder = tmp_path_factory.mktemp("named")
    for number, name in enumerate(NAMES):
        run = folder / f"{number} {name.replace('/', ' ')}"
        shutil.copytree(source, run, ignore=shutil.ignore_patterns("*.ckpt"))
        config = yaml.safe_load((run / "config.yaml").read_text())
        config["method"]["label"] = name
        (run / "config.yaml").write_text(yaml.safe_dump(config))
    bad = folder / os.fsdecode(b"half [written] \xff")
    shutil.copytree(source, bad)
    (bad / "summary.json").write_text("{")
    return folder


@pytest.fixture(scope="module")
def written(named_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The output of `compare`, and its files in each format."""
    out = tmp_path_factory.mktemp("out")
    words = [word for kind in ("html", "md", "tex", "csv") for word in ("--out", str(out / f"[out] it's.{kind}"))]
    result = command("compare", str(named_runs), "--baseline", "[b]bold[/b]", *words)
    assert result.returncode == 0, result.stderr
    return {"terminal": result.stdout, **{file.suffix: file.read_text() for file in out.iterdir()}}


def test_the_terminal_shows_names_as_they_are(written: dict[str, str]) -> None:
    text = " ".join(written["terminal"].split())
    assert "Differences are to [b]bold[/b]" in text
    assert "half [written] \\udcff: its summary.json is half written" in text
    assert "\x1b" not in written["terminal"]
    assert ":bug:" in text
    assert "[out] it's.html" in text


def test_csv_keeps_names_and_makes_no_formula(written: dict[str, str]) -> None:
    rows = list(csv.DictReader(io.StringIO(written[".csv"], newline="")))
    assert sorted(row["method"].removeprefix("'") for row in rows) == sorted(NAMES)
    assert not any(row[key].startswith(("=", "@", "-", "+", "\t")) for row in rows for key in ("group", "method"))
    assert not any(row["final_mean"].startswith("'") for row in rows)


def test_markdown_has_a_cell_for_each_number(written: dict[str, str]) -> None:
    lines = [line for line in written[".md"].splitlines() if line.startswith("|")]
    assert len(lines) == 2 + len(NAMES)
    assert len({line.count(" | ") for line in lines}) == 1
    assert "| `[b]bold[/b]` |" in written[".md"]
    assert "<code>a&#124;b&#96;c&#96;</code>" in written[".md"]
    assert r"Differences are to \[b\]bold\[/b\]" in written[".md"]
    table = "\n".join(lines)
    assert "<script>" not in re.sub(r"`[^`]*`", "", table)


def test_latex_escapes_every_name(written: dict[str, str]) -> None:
    body = written[".tex"].partition(r"\midrule")[2].partition(r"\bottomrule")[0]
    body = re.sub(r"\\allowbreak\{\}|\\penalty200\{\}|\\raggedright ", "", body)
    rows = [line.strip() for line in body.splitlines() if line.strip()]
    assert len(rows) == len(NAMES)
    assert all(row.endswith(r" \\") for row in rows)
    assert len({len(re.findall(r"(?<!\\)&", row)) for row in rows}) == 1
    assert r"a\_b \& 5 \% \# \textasciitilde{} \textasciicircum{} \textbackslash{} \{\} \$x\$ &" in body
    assert "a-{}-b" in body
    assert not any(row.startswith(("[", "*")) for row in rows), "\\\\ would take it for its argument"
    assert "line break and" in body


def test_the_page_holds_names_as_data(written: dict[str, str], tmp_path: Path) -> None:
    page = written[".html"]
    assert page.count("</script>") == 2
    assert "<!--" not in page.partition("<body>")[2]
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])  # type: ignore[index]
    assert sorted(group["label"] for group in data["groups"]) == sorted(NAMES)
    if CHROMIUM is None:
        pytest.skip("no Chromium or Chrome on this machine")
    file = tmp_path / "a #1 page? 100%.html"
    file.write_text(page)
    with Browser(file, tmp_path / "profile") as browser:
        assert browser.complaints() == []
        shown = browser.run("[...document.querySelectorAll('#chips button')].map((one) => one.textContent)")
        assert [name.partition(", ")[0] for name in shown]
        assert sorted(shown) == sorted(group["name"] for group in data["groups"])
        assert browser.run("document.querySelectorAll('script').length") == 2
        rows = browser.run("csvText(figures.find((one) => one.id === 'results').rows())")
        assert {row["group"].removeprefix("'") for row in csv.DictReader(io.StringIO(rows, newline=""))} == set(shown)
        assert not re.search(r"^\"?([=@+]|-(?!\d))", rows, re.MULTILINE)  # -2 is a number, no formula


def test_a_command_on_a_page_can_be_pasted(written: dict[str, str]) -> None:
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', written[".html"], re.DOTALL)
    assert data
    words = shlex.split(json.loads(data[1])["command"])
    assert words[words.index("--baseline") + 1] == "[b]bold[/b]"
    assert words[-1].endswith("[out] it's.csv")


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("kind", ["html", "md", "tex", "csv"])
def test_a_full_disk_leaves_the_old_file(
    compared_runs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    kind: str,
    error: int,
) -> None:
    out = tmp_path / f"report.{kind}"
    out.write_text("old")

    def full(*_: object) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr("gradspike.runs.files.os.replace", full)
    code, _, said = here(["compare", str(compared_runs), "--out", str(out)], capsys)
    assert code == 1
    advice = "" if error == errno.EIO else ": free some space"
    assert said == f"Error: --out {out}: cannot be written ({os.strerror(error)}){advice}.\n"
    assert out.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_a_name_that_is_not_utf8_and_a_locale_without_letters(named_runs: Path, tmp_path: Path) -> None:
    """Paths are bytes, and a terminal may support only ASCII: both are printed with escapes."""
    folder = tmp_path / os.fsdecode(b"r\xfcns")
    shutil.copytree(next(named_runs.glob("2 *")), folder / "one")
    out = folder / "page.html"
    result = command("compare", os.fspath(folder), "--out", os.fspath(out), PYTHONIOENCODING="ascii", LC_ALL="C")
    assert result.returncode == 0, result.stderr
    assert "r\\udcfcns" in result.stdout
    assert "<title>Comparison of " in out.read_text()
