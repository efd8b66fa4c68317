"""From a validated configuration to a trained, tested and recorded network."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers import Logger

from gradspike.config.overrides import override
from gradspike.config.recipes import start_lines
from gradspike.config.schema import ExperimentConfig, TrainerConfig, short_name
from gradspike.data.datamodule import DataModule
from gradspike.errors import Interrupted, UserError
from gradspike.loggers.jsonl import JsonLines
from gradspike.loggers.wandb import WandbLogger
from gradspike.runs.folder import RunFolder
from gradspike.started import typed_command
from gradspike.terminal.tables import Summary, console
from gradspike.training.build import report_of
from gradspike.training.callbacks.checkpoints import Checkpoints
from gradspike.training.callbacks.evaluation_record import EvaluationRecord, write_evaluations
from gradspike.training.callbacks.interrupt import SignalGuard, StopOnSignal
from gradspike.training.callbacks.progress import EpochLines, ProgressBar
from gradspike.training.callbacks.timing import Timing
from gradspike.training.callbacks.weight_average import WeightAverage
from gradspike.training.evaluate import build_data, evaluate_weights, load_checkpoint, require_samples
from gradspike.training.module import SpikingClassifier
from gradspike.training.probe.probe import Probe
from gradspike.training.processes import is_first_process
from gradspike.training.trainer import build_trainer, check_device, quieten

log = logging.getLogger("gradspike")


def train(config: ExperimentConfig, resumed: RunFolder | None, command: list[str]) -> tuple[RunFolder, Summary]:
    """Train and test one run; returns its folder and its summary.

    `resumed` is the folder of a run to go on with. Raises UserError for everything the user can mend and Interrupted
    for a signal; the folder is then marked as failed or interrupted, or was not made at all.
    """
    quieten()
    with SignalGuard() as guard:
        checkpoint = load_checkpoint(resumed.last, resumed.best) if resumed and resumed.last.exists() else None
        check_device(config.trainer)
        L.seed_everything(config.seed, verbose=False)
        data = build_data(config)
        module = SpikingClassifier(config)  # a network that cannot be is told before data are prepared for it
        if is_first_process():
            data.prepare_data()  # before a run's folder is made, so that data that cannot be had leaves none behind
        data.setup()
        for split in ("train", "test"):
            require_samples(data, split)
        if not is_first_process():
            # The first process writes and speaks; the others learn where the best checkpoint lies when it is there.
            run = resumed or RunFolder(Path(os.devnull))
            return run, _fit_and_test(config, run, data, module, checkpoint, guard)
        run = resumed or RunFolder.create(config)
        return run, _recorded(config, run, data, module, checkpoint, guard, command)


def _recorded(
    config: ExperimentConfig,
    run: RunFolder,
    data: DataModule,
    module: SpikingClassifier,
    checkpoint: dict[str, Any] | None,
    guard: SignalGuard,
    command: list[str],
) -> Summary:
    """Fit and test with the run's folder locked and its state and log kept."""
    run.lock()
    handler = _log_to(run.log)
    try:
        run.set_status("running")
        parts = (config.dataset.name, config.model.name, config.method.name)
        run.record_session(command, [name.partition(":")[0] for name in parts if ":" in name])
        _tell(config, run, module, checkpoint)
        summary = _fit_and_test(config, run, data, module, checkpoint, guard)
        run.write_summary(summary)
        run.set_status("finished")
        return summary
    except (Interrupted, KeyboardInterrupt) as error:
        run.set_status("interrupted", str(error))
        log.info("Go on with: %s", typed_command("train", override("resume", str(run.path))))
        raise
    except BaseException as error:
        run.set_status("failed", f"{type(error).__name__}: {error}")
        if run.last.is_file():
            log.info("The newest good state: %s", run.last)
        raise
    finally:
        log.removeHandler(handler)
        handler.close()
        run.unlock()


def _tell(
    config: ExperimentConfig, run: RunFolder, module: SpikingClassifier, checkpoint: dict[str, Any] | None
) -> None:
    """Say where the run lies, what was made of a network of timm, whose settings it has, and from where it goes on."""
    log.info("run: %s", run.path)
    for line in report_of(module.model):
        log.info("model: %s", line)
    for line in start_lines(config):
        log.info("%s", line)
    if config.trainer.ema is not None:
        log.info("evaluated: the moving average of the weights, trainer.ema=%g", config.trainer.ema)
    if checkpoint is not None:
        log.info("resumed at epoch %d, step %d", checkpoint["epoch"] + 1, checkpoint["global_step"])


def _fit_and_test(
    config: ExperimentConfig,
    run: RunFolder,
    data: DataModule,
    module: SpikingClassifier,
    checkpoint: dict[str, Any] | None,
    guard: SignalGuard,
) -> Summary:
    metrics = JsonLines(run.metrics)
    checkpoints = Checkpoints(run.checkpoints, config.checkpoint.every_n_steps, metrics)
    extra_logger = _build_logger(config, run)
    timing = Timing(run.timing)
    callbacks: list[L.Callback] = _progress(config.trainer, timing)
    # Before whatever saves a step: it is to find that step's record written, and its weights averaged.
    if config.probe.enabled:
        callbacks.append(Probe(config.probe))
    if config.trainer.ema is not None:
        callbacks.append(WeightAverage(config.trainer.ema))
    record = EvaluationRecord()
    callbacks += [record, StopOnSignal(guard, checkpoints), timing, checkpoints]
    validates = len(data.samples.indices("val")) > 0
    trainer = build_trainer(config, [metrics, *([extra_logger] if extra_logger else [])], callbacks, validates)
    failed = True
    summary: Summary = {}
    try:
        if checkpoint is not None and trainer.is_global_zero:
            metrics.cut(checkpoint["metrics_bytes"])
        if isinstance(extra_logger, WandbLogger):
            extra_logger.start()
        trainer.fit(module, data, ckpt_path=run.last if checkpoint is not None else None, weights_only=True)
        summary = _summary(config, run, trainer, module, data, checkpoints, record)
        failed = False
    finally:
        if isinstance(extra_logger, WandbLogger):
            extra_logger.close(summary, failed)
    return summary


def _summary(
    config: ExperimentConfig,
    run: RunFolder,
    trainer: L.Trainer,
    module: SpikingClassifier,
    data: DataModule,
    checkpoints: Checkpoints,
    record: EvaluationRecord,
) -> Summary:
    """Test the last and the best-by-validation weights, once, and gather what a comparison needs; the larger part of it
    goes to files of its own.

    Without a validation split the last weights stand for the best ones, and `val` holds the epoch alone.
    """
    last_path, best_path = (Path(path) for path in trainer.strategy.broadcast((str(run.last), str(run.best))))

    def tested(checkpoint: Path) -> dict[str, float]:
        values = evaluate_weights(trainer, module, data, load_checkpoint(checkpoint)["state_dict"])
        if module.test_problem:
            log.error("Test of %s: %s. There is no test accuracy.", checkpoint.name, module.test_problem)
        return values

    test, seen = {"last": tested(last_path)}, {"last": record.take()}
    if checkpoints.best["epoch"] == checkpoints.last["epoch"]:
        test["best"], seen["best"] = dict(test["last"]), seen["last"]
    else:
        test["best"] = tested(best_path)
        seen["best"] = record.take()
    if trainer.is_global_zero:
        write_evaluations(run.path, seen)
    val = {
        name: {"epoch": values["epoch"]}
        | {key.removeprefix("val/"): value for key, value in values.items() if key.startswith("val/")}
        for name, values in (("last", checkpoints.last), ("best", checkpoints.best))
    }
    return {
        "method": config.method_label(),
        "dataset": config.dataset.name,
        "model": short_name(config.model.name),
        "seed": config.seed,
        "time_steps": config.time_steps,
        "epochs": config.trainer.max_epochs,
        "steps": trainer.global_step,
        "parameters": sum(parameter.numel() for parameter in module.model.parameters()),
        "ema": config.trainer.ema,
        "val": val,
        "test": test,
    }


def _build_logger(config: ExperimentConfig, run: RunFolder) -> Logger | None:
    if config.logger.name == "wandb":
        return WandbLogger(config, run.path, run.id)
    if config.logger.name == "tensorboard":
        try:
            from lightning.pytorch.loggers import TensorBoardLogger

            return TensorBoardLogger(save_dir=run.path, name="tensorboard", version="")
        except ModuleNotFoundError as error:
            raise UserError(
                "logger=tensorboard needs the package tensorboard: pip install 'gradspike[tensorboard]'"
            ) from error
    return None


def _progress(options: TrainerConfig, timing: Timing) -> list[L.Callback]:
    out = console()
    if not is_first_process() or options.progress == "none":
        return []
    if options.progress == "bar" or (options.progress == "auto" and out.is_terminal):
        return [ProgressBar(out)]
    return [EpochLines(timing)]


def _log_to(file: Path) -> logging.Handler:
    """Copy what is said to run.log."""
    handler = logging.FileHandler(file)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    return handler


def training_seconds(run: RunFolder) -> float:
    """Seconds spent in epochs, over all sessions of the run."""
    lines = run.timing.read_text(encoding="utf-8").splitlines() if run.timing.is_file() else []
    return sum(float(json.loads(line)["epoch_seconds"]) for line in lines)
