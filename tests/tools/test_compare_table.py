"""The tables of `gradspike compare` at the terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from gradspike.tools.compare.table import _print_table, fitting_parts

HEAD = ["method", "firing (%)", "gradient (%)", "over layers (%)", "energy (nJ)", "parameters", "s per epoch"]
ROWS = [["mpd_agl", "9.67 ± 1.92", "48.83 ± 3.28", "0.92 ± 1.06", "101", "12,680,123", "0.257"]]


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_a_table_breaks_no_number_and_no_word_at_any_width(width: int) -> None:
    written = io.StringIO()
    _print_table(Console(file=written, width=width, markup=False), "Inside", HEAD, ROWS)
    lines = written.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    words = set(written.getvalue().replace("│", " ").replace("┃", " ").split())
    for cell in ROWS[0]:
        assert any(f" {cell} │" in line for line in lines), cell
    assert words >= {word for name in HEAD for word in name.split()}


def test_names_and_texts_wider_than_the_terminal_are_folded_and_nothing_is_cut() -> None:
    written = io.StringIO()
    name, text = "n" * 100, "t" * 100
    _print_table(Console(file=written, width=60, markup=False), "Inside", HEAD[:3], [[name, "1.00", text]])
    assert max(map(len, written.getvalue().splitlines())) <= 60
    assert sum(line.count("n") for line in written.getvalue().splitlines() if "│" in line) == 200  # in two tables
    assert sum(line.count("t") for line in written.getvalue().splitlines() if "│" in line) == 100


def test_columns_that_do_not_fit_go_into_another_table() -> None:
    assert fitting_parts([20, 10, 10], 80) == [[0, 1, 2]]
    assert fitting_parts([20, 40, 50], 80) == [[0, 1], [0, 2]]
