"""How many events or spikes of the files a prepared set counts, as recorded under `kept` in meta.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gradspike.data.events.recording import percent


def kept_facts(what: str, kept: int, left_out: int, disordered: int = 0) -> dict[str, Any]:
    """what: "events" or "spikes"; then their numbers: counted, left out, and out of order (sorted)."""
    return {"what": what, "kept": kept, "left_out": left_out, "disordered": disordered}


def kept_line(facts: Mapping[str, Any]) -> str:
    """Format the numbers of `kept_facts` for the summary: `3,840; 12 left out (0.31 %)`."""
    share = percent(facts["left_out"] / max(facts["kept"] + facts["left_out"], 1))
    line = f"{facts['kept']:,}; {facts['left_out']:,} left out ({share})"
    return line + (f"; {facts['disordered']:,} out of order, sorted" if facts["disordered"] else "")
