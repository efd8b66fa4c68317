"""External text stays text: rich never interprets names as markup."""

from __future__ import annotations

import ast
import io
from pathlib import Path

import pytest
from rich.console import Console

from gradspike.data.prepared import work_bar
from helpers.command import ROOT

NAME = "preparing [/b] [red]x[/red] :bug: [link=a]"


def test_the_title_of_a_bar_is_text(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()

    def console(**options: bool) -> Console:
        del options["stderr"]
        return Console(file=written, force_terminal=True, width=200, color_system=None, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(work_bar, "Console", console)
    with work_bar.WorkBar(NAME, total=4) as bar:
        bar.advance(4)
    assert NAME in written.getvalue()


def calls(path: Path, name: str) -> list[dict[str | None, ast.expr]]:
    """The named arguments of all calls of a class, or of one derived from it in the same file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    derived = {one.name for one in classes if any(isinstance(base, ast.Name) and base.id == name for base in one.bases)}
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [
        {keyword.arg: keyword.value for keyword in node.keywords}
        for node in found
        if isinstance(node.func, ast.Name) and node.func.id in {name, *derived}
    ]


@pytest.mark.parametrize("name", ["TextColumn", "Console"])
def test_no_column_and_no_console_reads_markup(name: str) -> None:
    """`Console()` alone only asks for the width."""
    seen = 0
    for path in sorted((ROOT / "src").rglob("*.py")):
        for options in calls(path, name):
            if name == "Console" and not options:
                continue
            markup = options.get("markup")
            assert isinstance(markup, ast.Constant), f"{path}: {name} without markup=False"
            assert markup.value is False, f"{path}: {name} without markup=False"
            seen += 1
    assert seen >= 2
