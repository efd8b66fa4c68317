"""More epochs for a run: what the schedule and the methods make of them."""

from __future__ import annotations

from gradspike.config.schema import ExperimentConfig
from gradspike.methods.base import Method
from gradspike.training.module import SpikingClassifier
from gradspike.training.optim import rate_fraction


def extension_line(config: ExperimentConfig, module: SpikingClassifier, done: int, before: int, now: int) -> str:
    """How a run of `before` epochs, of which `done` are complete, continues with `now` epochs."""
    schedule = config.scheduler
    rates = [config.optimizer.lr * rate_fraction(schedule, done, schedule.warmup_epochs, all) for all in (before, now)]
    line = f"schedule: {schedule.name} over {now} epochs from here on"
    line += f"; the learning rate is {rates[1]:.3g} in epoch {done + 1}"
    if rates[0] != rates[1]:
        line += f" instead of {rates[0]:.3g}, so the run differs from one that was started with {now} epochs"
    if any(isinstance(one, Method) and one.uses_progress for one in module.model.modules()):
        line += f". The method's progress goes back from {done / before:.0%} to {done / now:.0%}"
    return f"{line}."
