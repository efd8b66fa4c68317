"""A run from start to end: prepare, train, test, record."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L

from gradspike.config.recipes import start_lines
from gradspike.config.schema import ExperimentConfig
from gradspike.config.settling import unsettled
from gradspike.config.trust import outside, remember
from gradspike.data.datamodule import DataModule
from gradspike.errors import Interrupted
from gradspike.exhausted import one_sentence
from gradspike.loggers.base import RunLogger
from gradspike.loggers.jsonl import JsonLines
from gradspike.loggers.registry import build_logger
from gradspike.runs.folder import RunFolder, Summary
from gradspike.runs.resume import EXTENDED, changes, statistics_change
from gradspike.runs.start import start_file
from gradspike.runs.timing import drop_epochs
from gradspike.shown import shown
from gradspike.training.build import build_data, check_cuda_graphs, check_deterministic, report_of, require_samples
from gradspike.training.callbacks.checkpoints import Checkpoints, epochs_done
from gradspike.training.callbacks.evaluation_record import EvaluationRecord
from gradspike.training.callbacks.finite_differences import FiniteDifferences
from gradspike.training.callbacks.interrupt import SignalGuard, StopOnSignal
from gradspike.training.callbacks.progress import progress
from gradspike.training.callbacks.timing import Timing
from gradspike.training.callbacks.weight_average import WeightAverage
from gradspike.training.checkpoint import SavedState, newest_state
from gradspike.training.device import check_device, device_type
from gradspike.training.engine_choice import settle_engine
from gradspike.training.extension import extension_line
from gradspike.training.module import SpikingClassifier
from gradspike.training.place import Place, find_place
from gradspike.training.probe.probe import Probe
from gradspike.training.processes import is_first_process
from gradspike.training.session import record_end, recorded
from gradspike.training.start import started
from gradspike.training.step_facts import step_facts, step_line
from gradspike.training.summary import summarise
from gradspike.training.to_lower import to_lower
from gradspike.training.trainer import build_trainer, quieten
from gradspike.training.watch import Watch, watched

log = logging.getLogger("gradspike")


def train(config: ExperimentConfig, resumed: RunFolder | None, command: list[str]) -> tuple[RunFolder, Summary]:
    """Train and test one run. Returns its folder and its summary.

    resumed: the folder of a run to continue. Raises UserError for errors that the user can fix, and Interrupted after a
    signal. The run is then marked as failed or interrupted, unless it has no folder yet.
    """
    place = find_place(config.trainer, command)
    quieten(place)
    hours = config.trainer.max_hours

    def lowered() -> str:
        return to_lower(config, resumed=resumed is not None)

    with SignalGuard(place, hours) as guard, _held(resumed), one_sentence(lowered):
        task = _prepare(config, resumed, place)
        if not is_first_process():
            # Only the first process writes. It broadcasts the paths of the checkpoints.
            run = resumed or RunFolder(Path(os.devnull))
            try:
                return run, _fit_and_test(task, run, guard, command)
            except Interrupted as error:
                raise SystemExit(error.exit_code) from None  # the first process reports it
        run = resumed or RunFolder.create(config)
        plain = config.plain()
        remember(plain)
        modules = [name.partition(":")[0] for name in outside(plain).values()]
        facts = step_facts(config, len(task.data.samples.indices("train")))
        changed = changes(run, config) if resumed is not None else {}
        with recorded(run, command, modules, facts, changed, new=resumed is None), one_sentence(lowered):
            if EXTENDED in changed:
                run.extend(config.trainer.max_epochs)
            _announce(task, run, changed)
            log.info("%s", step_line(facts))
            summary = _fit_and_test(task, run, guard, command)
            run.write_summary(summary)
            # Given weights come with the statistics of their training.
            fresh = config.init_from is None
            if fresh and (text := unsettled(config.norm.momentum, int(summary["steps"]))):
                log.warning("Too short to test: %s. Validation and test see another network than training does.", text)
        return run, summary


@contextmanager
def _held(resumed: RunFolder | None) -> Iterator[None]:
    """Lock the resumed run before its data are prepared. The first process holds the lock for all processes."""
    if resumed is None or not is_first_process():
        yield
        return
    resumed.lock()
    try:
        yield
    finally:
        resumed.unlock()


@dataclass(frozen=True)
class _Task:
    """What to train, prepared before the run has a folder.

    state: the checkpoint that a resumed run continues from. start: lines about first weights and engine.
    """

    config: ExperimentConfig
    data: DataModule
    module: SpikingClassifier
    state: SavedState | None
    resumed: bool
    place: Place
    start: tuple[str, ...]


def _prepare(config: ExperimentConfig, resumed: RunFolder | None, place: Place) -> _Task:
    state = newest_state(resumed) if resumed else None
    check_device(config.trainer)
    L.seed_everything(config.seed, verbose=False)
    data = build_data(config)
    # Before the data, so that an impossible network is reported at once.
    start = started(config, start_file(config) if state is None else None, saved=state is not None)
    module = start.module
    for check in (check_deterministic, check_cuda_graphs):
        check(config, module.model, device_type(config.trainer.accelerator))
    if is_first_process():
        data.prepare_data()
    data.setup()
    for split in ("train", "test"):
        require_samples(data, split)
    engine = settle_engine(module.model, config, len(data.samples.indices("train")))
    lines = start.lines if engine is None else (*start.lines, engine)
    return _Task(config, data, module, state, resumed is not None, place, lines)


def _announce(task: _Task, run: RunFolder, changed: dict[str, list[Any]]) -> None:
    """Log the run's folder, the sources of the network and settings, and where training resumes."""
    log.info("run: %s", shown(run.path))
    for line in report_of(task.module.model):
        log.info("model: %s", line)
    for line in task.start:
        log.info("%s", line)
    for line in start_lines(task.config):
        log.info("%s", line)
    if task.config.trainer.ema is not None:
        log.info("evaluated: the moving average of the weights, trainer.ema=%g", task.config.trainer.ema)
    if task.state is not None:
        for problem in task.state.problems:
            log.warning("%s Continuing from %s.", problem, task.state.path.name)
        done, epochs = epochs_done(task.state.content), task.config.trainer.max_epochs
        where = f"at epoch {done + 1} of {epochs}" if done < epochs else "after the last epoch"
        log.info("resumed %s, step %d", where, task.state.content["global_step"])
    elif task.resumed:
        log.info("resumed from the start: the run has no checkpoint")
    for key, (before, now) in changed.items():
        log.info("changed: %s=%s instead of %s", key, now, before)
    if task.state is not None and EXTENDED in changed:
        log.info("%s", extension_line(task.config, task.module, epochs_done(task.state.content), *changed[EXTENDED]))
    if task.state is not None and (warning := statistics_change(run, task.config)):
        log.warning("%s", warning)


def _fit_and_test(task: _Task, run: RunFolder, guard: SignalGuard, command: list[str]) -> Summary:
    watch = Watch(task.place, on_lost=lambda error: record_end(run, error))
    if task.place.rank == 0:
        guard.on_end = lambda error: record_end(run, error)
    config, data, module = task.config, task.data, task.module
    metrics = JsonLines(run.metrics)
    logger = build_logger(config, run)
    loggers: list[RunLogger] = [metrics] if logger is None else [metrics, logger]
    checkpoints = Checkpoints(run.checkpoints, config.checkpoint.every_n_steps, metrics)
    timing, record = Timing(run.timing), EvaluationRecord()
    # Its passes are no training steps, so nothing may watch the network yet.
    callbacks: list[L.Callback] = [FiniteDifferences()] if FiniteDifferences.needed(module.model) else []
    callbacks += progress(config.trainer, timing)
    # Probe and average come before all callbacks that save, so checkpoints include them.
    if config.probe.enabled:
        callbacks.append(Probe(config.probe))
    if config.trainer.ema is not None:
        callbacks.append(WeightAverage(config.trainer.ema))
    callbacks += [record, timing, StopOnSignal(guard, checkpoints), checkpoints]
    validates = len(data.samples.indices("val")) > 0
    trainer = build_trainer(config, loggers, callbacks, validates, watch, command)
    if trainer.is_global_zero:
        _rewind(task, run, loggers)
    summary: Summary | None = None
    try:
        for one in loggers:
            one.start()
        with watched(watch):
            trainer.fit(module, data, ckpt_path=task.state.path if task.state else None, weights_only=True)
            summary = summarise(config, run, trainer, module, data, checkpoints, record)
        return summary
    finally:
        for one in loggers:
            one.close(summary)


def _rewind(task: _Task, run: RunFolder, loggers: list[RunLogger]) -> None:
    """Cut the records of a resumed run back to the point where it continues."""
    if task.state is not None:
        JsonLines(run.metrics).cut(task.state.content["metrics_bytes"])
        drop_epochs(run.timing, epochs_done(task.state.content))
    elif task.resumed:
        run.timing.unlink(missing_ok=True)
        for one in loggers:
            one.start_again()
