"""docs/library.md runs as the notebook that jupytext makes of it."""

from __future__ import annotations

from pathlib import Path

import jupytext
import nbformat
import pytest

from helpers.command import ROOT


def test_the_page_runs_as_a_notebook(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").symlink_to(data_dir)
    file = tmp_path / "library.ipynb"
    jupytext.write(jupytext.read(ROOT / "docs/library.md"), file)
    notebook = nbformat.read(file, as_version=4)
    nbformat.validate(notebook)
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    assert len(cells) == 8
    names: dict[str, object] = {}
    for cell in cells:
        exec(compile(cell, "docs/library.md", "exec"), names)
    printed = capsys.readouterr().out
    assert "{'spikes': 0." in printed
    assert "torch.Size([3, 10])" in printed
    assert "'val/accuracy'" in printed
