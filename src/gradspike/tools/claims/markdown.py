"""docs/claims.md: each claim with the paper's figure, ours, and a verdict."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from gradspike.tools.claims.figures import Figure
from gradspike.tools.claims.inside import CAPTION, inside
from gradspike.tools.claims.report import Report
from gradspike.tools.claims.summary import Summary
from gradspike.tools.claims.verdict import Decided, Measured
from gradspike.tools.claims.wording import HOW, expected_text, runs_text, setting_text, tally, value_text


def markdown(report: Report, figures: Mapping[str, Sequence[Figure]], figure_folder: str) -> str:
    """The page's text. figures: by summary; their files lie in `figure_folder`, relative to the page."""
    parts = [
        "# What the papers claim, and what our runs show",
        "",
        f"`{report.command}` makes this page from `claims/*.yaml` and stored numbers of runs. Verdicts: "
        f"{tally(report.decided)}.",
        "",
        HOW,
    ]
    for title, decided in report.by_file:
        parts += [
            "",
            f"## {title}",
            "",
            "| claim | paper | ours | runs | verdict |",
            "|---|---|---|---|---|",
        ]
        parts += [_row(one) for one in decided]
    parts += ["", "## Runs", "", *_lines_of_runs(report)]
    for name, made in figures.items():
        if made:
            parts += ["", f"### Figures of `{name}`", ""]
            parts += [f"![{cell(one.title)}, {name}]({figure_folder}/{one.name}.svg)\n" for one in made]
    return "\n".join(parts).rstrip() + "\n"


def cell(text: str) -> str:
    """Text in a table's cell."""
    return re.sub(r"([\\|*<>])", r"\\\1", " ".join(text.split()))


def _row(one: Decided) -> str:
    claim = one.claim
    statement = f"**{claim.id}** {cell(claim.statement)} ({cell(claim.source)})"
    ours = "<br>".join(_measured(measured) for measured in one.measured)
    ours += ("<br>" if ours and claim.note else "") + cell(claim.note)
    verdict = f"**{one.verdict}**" + (f": {cell(one.reason)}" if one.reason else "")
    runs = ", ".join(f"[{name}](#{name})" for name in one.summaries)
    return f"| {statement} | {cell(claim.paper)} | {ours or '-'} | {runs or '-'} | {verdict} |"


def _measured(one: Measured) -> str:
    claimed = f", claimed: {expected_text(one.part.expect)}" if one.part.expect else ""
    paper = f", paper: {one.part.paper}" if one.part.paper else ""
    return cell(f"{one.part.what}: {value_text(one)}{claimed}{paper}")


def _lines_of_runs(report: Report) -> list[str]:
    lines: list[str] = []
    for name, summary in report.summaries.items():
        lines += [f"### {name}", "", *_of(summary), ""]
    return lines[:-1] or ["No runs are stored."]


def _of(summary: Summary) -> list[str]:
    made = ", ".join(f"{key} {value}" for key, value in summary.made_with.items())
    return [
        f"{summary.question} {runs_text(summary)}: {setting_text(summary)}. Made with {made}.",
        "",
        "```",
        summary.command,
        "```",
        *_inside(summary),
    ]


def _inside(summary: Summary) -> list[str]:
    if not (rows := inside(summary)):
        return []
    heading, *body = (f"| {' | '.join(map(cell, row))} |" for row in rows)
    return ["", CAPTION, "", heading, f"|---{'|---:' * (len(rows[0]) - 1)}|", *body]
