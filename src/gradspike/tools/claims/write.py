"""Writes the report to files."""

from __future__ import annotations

from pathlib import Path

from gradspike.runs.files import write_output
from gradspike.tools.claims.figures import figures
from gradspike.tools.claims.markdown import markdown
from gradspike.tools.claims.page import page
from gradspike.tools.claims.pictures import pictures
from gradspike.tools.claims.report import Report


def write(report: Report, path: Path) -> list[Path]:
    """Write `.md` with its figures in a folder beside it, or `.html` with them inside. Returns the files."""
    made = {name: [*figures(name, summary), *pictures(name, summary)] for name, summary in report.summaries.items()}
    if path.suffix.lower() == ".html":
        write_output(path, page(report, made), "--out ")
        return [path]
    folder = path.with_suffix("")
    files = []
    for figure in (one for several in made.values() for one in several):
        folder.mkdir(exist_ok=True)
        write_output(folder / f"{figure.name}.svg", figure.svg, "--out ")
        files.append(folder / f"{figure.name}.svg")
    write_output(path, markdown(report, made, folder.name), "--out ")
    return [*files, path]
