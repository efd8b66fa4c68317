"""Whether the running statistics of a network's norms have left their initial values behind."""

from __future__ import annotations

from gradspike.shown import counted

SETTLED = 0.05
"""The largest share of the initial values (mean 0, variance 1) in statistics that count as settled."""


def initial_share(momentum: float, steps: int) -> float:
    """The share of the initial values in running statistics after `steps` updates with `momentum`."""
    return float((1 - momentum) ** steps)


def unsettled(momentum: float, steps: int) -> str | None:
    """`28 % of ... after 12 steps` if running statistics are still dominated by their start, else None."""
    share = initial_share(momentum, steps)
    if share <= SETTLED:
        return None
    return (
        f"{100 * share:.0f} % of the norms' running statistics are still their initial values after "
        f"{counted(steps, 'optimiser step')} (norm.momentum={momentum:g})"
    )
