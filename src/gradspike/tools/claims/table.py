"""The claims in the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from gradspike.tools.claims.report import Report
from gradspike.tools.claims.wording import runs_text, setting_text, tally, value_text


def print_claims(report: Report, out: Console) -> None:
    """Print a table for each claim file, and the runs behind them."""
    for title, decided in report.by_file:
        table = Table(title=title, title_justify="left", show_lines=True)
        table.add_column("claim", ratio=3)
        table.add_column("paper", ratio=2)
        table.add_column("ours", ratio=4)
        table.add_column("verdict", ratio=1)
        for one in decided:
            ours = "\n".join(f"{measured.part.what}: {value_text(measured)}" for measured in one.measured)
            table.add_row(f"{one.claim.id} {one.claim.statement}", one.claim.paper, ours or one.reason, one.verdict)
        out.print(table)
    for name, summary in report.summaries.items():
        out.print(f"{name}: {runs_text(summary)}, {setting_text(summary)}", soft_wrap=True)
    out.print(f"{tally(report.decided)}.", soft_wrap=True)
