"""An optimiser of two rules: one for the network, and Adam for the parameters of methods that ask for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Adam, Optimizer
from typing_extensions import override


class WithAdam(Optimizer):
    """Steps the parameter groups with the key `adam` by Adam, and all others by the rule of `network`.

    One optimiser for the trainer, because Lightning's own loop takes one. It has the groups and the state of both, so
    schedules, clipping and checkpoints see nothing new.
    """

    def __init__(self, network: Optimizer, own: Adam) -> None:
        super().__init__([*network.param_groups, *own.param_groups], {})
        self.state.update(network.state)
        self._rules = (network, own)

    @override
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """One step of both rules, after the closure, whose result it returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for rule, adam in zip(self._rules, (False, True), strict=True):
            # Loading a checkpoint replaces the groups and the state.
            rule.param_groups = [group for group in self.param_groups if ("adam" in group) == adam]
            rule.state = self.state
            rule.step()
        return loss
