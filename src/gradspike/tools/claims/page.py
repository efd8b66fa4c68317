"""The HTML page of the claims: one file without scripts that needs no network."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files

from gradspike.tools.claims.figures import Figure
from gradspike.tools.claims.inside import CAPTION, inside
from gradspike.tools.claims.report import Report
from gradspike.tools.claims.summary import Summary
from gradspike.tools.claims.verdict import DOES_NOT, HOLDS, NOT_RUN, UNKNOWN, Decided, Measured
from gradspike.tools.claims.wording import HOW, expected_text, runs_text, setting_text, tally, value_text

CLASSES = {HOLDS: "holds", DOES_NOT: "fails", UNKNOWN: "open", NOT_RUN: "absent"}


def page(report: Report, figures: Mapping[str, Sequence[Figure]]) -> str:
    """The page's text. figures: by summary."""
    style = (files(__package__) / "page.css").read_text(encoding="utf-8")
    how = re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", escape(HOW))
    sections = [_section(title, decided) for title, decided in report.by_file]
    sections += [_runs(report, figures)]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Claims of papers, and our runs</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        f"<h1>What the papers claim, and what our runs show</h1>\n<p class=tally>{escape(tally(report.decided))}</p>\n"
        f"<p class=how>{how}</p>\n{''.join(sections)}</body>\n</html>\n"
    )


def _section(title: str, decided: Sequence[Decided]) -> str:
    claims = "".join(_claim(one) for one in decided)
    return f"<section>\n<h2>{escape(title)}</h2>\n{claims}</section>\n"


def _claim(one: Decided) -> str:
    claim = one.claim
    rows = "".join(_row(measured) for measured in one.measured)
    table = (
        f"<div class=scroll><table><tr><th>number<th>ours, 95 % interval<th>claimed<th>paper</tr>{rows}</table></div>"
        if rows
        else ""
    )
    notes = [f"<p class=note>{escape(text)}</p>" for text in (one.reason, claim.note) if text]
    runs = ", ".join(f'<a href="#{escape(name)}">{escape(name)}</a>' for name in one.summaries)
    return (
        f'<article id="{escape(claim.id)}">\n'
        f"<h3><span class=id>{escape(claim.id)}</span> {escape(claim.statement)}</h3>\n"
        f'<p><span class="verdict {CLASSES[one.verdict]}">{escape(one.verdict)}</span> '
        f"<span class=source>{escape(claim.source)}. Paper: {escape(claim.paper)}</span></p>\n"
        f"{table}{''.join(notes)}{f'<p class=note>Runs: {runs}</p>' if runs else ''}</article>\n"
    )


def _row(one: Measured) -> str:
    claimed = expected_text(one.part.expect) if one.part.expect else ""
    cells = (one.part.what, value_text(one), claimed, one.part.paper)
    return f"<tr>{''.join(f'<td>{escape(text)}' for text in cells)}</tr>"


def _runs(report: Report, figures: Mapping[str, Sequence[Figure]]) -> str:
    parts = []
    for name, summary in report.summaries.items():
        made = ", ".join(f"{key} {value}" for key, value in summary.made_with.items())
        drawn = "".join(f"<figure>{_inline(one)}</figure>" for one in figures.get(name, ()))
        parts.append(
            f'<article id="{escape(name)}"><h3>{escape(name)}</h3>\n'
            f"<p>{escape(summary.question)} {escape(runs_text(summary))}: {escape(setting_text(summary))}. "
            f"Made with {escape(made)}.</p>\n<pre>{escape(summary.command)}</pre>\n"
            f"{_inside(summary)}<div class=figures>{drawn}</div></article>\n"
        )
    return f"<section>\n<h2>Runs</h2>\n{''.join(parts)}</section>\n"


def _inside(summary: Summary) -> str:
    if not (rows := inside(summary)):
        return ""
    heading, *body = (f"<tr>{''.join(f'<td>{escape(text)}' for text in row)}</tr>" for row in rows)
    table = f"<table>{heading.replace('<td>', '<th>')}{''.join(body)}</table>"
    return f"<p class=note>{escape(CAPTION)}</p><div class=scroll>{table}</div>\n"


def _inline(figure: Figure) -> str:
    """The SVG element, with ids that are unique on the page."""
    svg = figure.svg[figure.svg.index("<svg") :]
    svg = re.sub(r'\bid="', f'id="{figure.name}-', svg)
    svg = re.sub(r'((?:xlink:)?href="|url\()#', rf"\1#{figure.name}-", svg)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(figure.title)}" ', 1)
