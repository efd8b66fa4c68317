"""The LaTeX tables: what is in them, and whether pdflatex sets them in a paper's column."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from gradspike.tools.compare.latex import latex
from gradspike.tools.compare.report import compare
from helpers.groups import grouping_of

PDFLATEX = shutil.which("pdflatex")
SEEDS = range(5)
SHORT = grouping_of(
    {
        ("fixed_sg", ()): {seed: 0.91 + 0.002 * seed for seed in SEEDS},
        ("lsg", ()): {seed: 0.90 + 0.003 * seed for seed in SEEDS},
        ("psg", ()): {seed: 0.96 + 0.002 * seed + 0.0001 * (seed % 2) for seed in SEEDS},
    }
)
LONG = grouping_of(
    {
        (label, (("method.width", width), ("optimizer.weight_decay", 0.0005))): dict.fromkeys(SEEDS, at + 0.01 * width)
        for label, at in (("fixed_sg", 0.9), ("ds_atgo_threshold_driver", 0.8))
        for width in (0.25, 0.5)
    }
)
SETS = grouping_of(
    {
        (label, (("dataset.name", data),)): {seed: at + 0.001 * seed for seed in SEEDS}
        for label, at in (("fixed_sg", 0.9), ("mpd_agl_no_gamma", 0.8))
        for data in ("cifar10", "cifar10dvs")
    }
)


def test_signs_are_in_math_mode_and_only_a_real_winner_is_bold() -> None:
    table = latex(compare(SHORT, [], ()))
    assert "$-$0.80 [$-$" in table
    assert re.findall(r"\\textbf{([^}]*)}", table) == [r"96.40 $\pm$ 0.32"]
    assert not re.search(r"[^$\w{}-]-\d", table.partition(r"\midrule")[2])
    close = grouping_of({("a", ()): {0: 0.9, 1: 0.8}, ("b", ()): {0: 0.85, 1: 0.86}})
    assert r"\textbf" not in latex(compare(close, [], ()))


def test_columns_are_chosen_and_equal_ones_named_once() -> None:
    table = latex(compare(SHORT, [], ()), ["difference", "n"])
    assert r"method & difference & n \\" in table
    assert "Equal in all rows" not in table
    for keys in (None, ["difference"]):
        assert "Equal in all rows: n 5" in latex(compare(SHORT, [], ()), keys)


@pytest.mark.skipif(PDFLATEX is None, reason="no pdflatex on this machine")
def test_pdflatex_sets_every_table_in_its_width(tmp_path: Path) -> None:
    assert PDFLATEX is not None
    every = ("n", "test", "interval", "difference", "p")
    tables = [
        latex(compare(SHORT, [], ())),
        latex(compare(SHORT, [], ()), every),
        latex(compare(LONG, ["width=0.25"], ())),
        latex(compare(LONG, [], ()), every),
        latex(compare(SETS, [], ())),
    ]
    lines = [r"\documentclass[twocolumn]{article}", r"\usepackage{booktabs}", r"\begin{document}", *tables]
    (tmp_path / "paper.tex").write_text("\n".join([*lines, r"\end{document}"]))
    words = [PDFLATEX, "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    result = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stdout[-3000:]
    assert not re.findall(r"Overfull.*", result.stdout)
    assert (tmp_path / "paper.pdf").stat().st_size > 10_000
