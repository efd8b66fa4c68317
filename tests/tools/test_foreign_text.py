"""Names, paths and labels that look like markup, a formula or code: printed and written as they are."""

from __future__ import annotations

import io

import pytest
from rich.table import Table

from gradspike.terminal.tables import console

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
