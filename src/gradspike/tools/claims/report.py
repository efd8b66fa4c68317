"""All claims with their verdicts, and the runs behind them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gradspike.tools.claims.claim import Claims
from gradspike.tools.claims.summary import Summary
from gradspike.tools.claims.verdict import Decided, decide


@dataclass(frozen=True)
class Report:
    """What the terminal, Markdown and the page show."""

    command: str
    by_file: tuple[tuple[str, tuple[Decided, ...]], ...]
    """Titles of the claim files, and their claims."""
    summaries: Mapping[str, Summary]
    """Those that some claim uses, by name."""

    @property
    def decided(self) -> list[Decided]:
        """All claims."""
        return [one for _, decided in self.by_file for one in decided]


def report(claims: Claims, summaries: Mapping[str, Summary], command: str) -> Report:
    """Decide all claims. Raises ConfigError if a claim does not fit its runs."""
    by_file = tuple((file.title, tuple(decide(claim, summaries) for claim in file.claims)) for _, file in claims.files)
    used = {name: summaries[name] for name in sorted(claims.summaries & summaries.keys())}
    return Report(command, by_file, used)
