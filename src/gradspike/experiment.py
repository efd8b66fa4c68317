"""From a validated configuration to a trained, tested and recorded network."""

from __future__ import annotations

import json
import logging
import os
import platform
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import Logger

from gradspike.callbacks.checkpoints import AtomicFiles, Checkpoints
from gradspike.callbacks.evaluation_record import EvaluationRecord, write_evaluations
from gradspike.callbacks.interrupt import KeepListening, SignalGuard, StopOnSignal
from gradspike.callbacks.probe import Probe
from gradspike.callbacks.progress import EpochLines, ProgressBar
from gradspike.callbacks.timing import Timing
from gradspike.callbacks.weight_average import WeightAverage
from gradspike.config import ExperimentConfig, TrainerConfig, short_name, validate
from gradspike.data.datamodule import DataModule
from gradspike.data.source import Split
from gradspike.errors import Interrupted, UserError
from gradspike.models.build import report_of
from gradspike.module import SpikingClassifier
from gradspike.processes import is_first_process
from gradspike.recipes import start_lines
from gradspike.reporting.jsonl import JsonLines
from gradspike.reporting.printer import LogPrinter
from gradspike.reporting.terminal import Summary, console, typed_command
from gradspike.reporting.wandb import WandbLogger
from gradspike.runs import RunFolder

log = logging.getLogger("gradspike")

PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed"}


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
        log.info("Go on with: %s", typed_command("src/train.py", resume=str(run.path)))
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


def evaluate(
    run: RunFolder, checkpoints: list[Path], split: Split, data_dir: str | None, accelerator: str
) -> dict[str, dict[str, float]]:
    """Accuracy, loss and firing rate of each checkpoint on `split` (train, val or test), by the checkpoint's name."""
    quieten()
    config = as_evaluated(run.config(), data_dir, accelerator)
    check_device(config.trainer)
    with SignalGuard() as guard:
        states = {path: load_checkpoint(path)["state_dict"] for path in checkpoints}
        data, module = build_data(config), SpikingClassifier(config)
        data.prepare_data()
        data.setup()
        require_samples(data, split)
        data.test_split = split
        trainer = build_trainer(config, loggers=[], callbacks=[KeepListening(guard)])
        results = {}
        for path, state in states.items():
            try:
                results[path.stem] = _test(trainer, module, data, state)
            except RuntimeError as error:
                if "state_dict" not in str(error):
                    raise
                raise UserError(
                    f"{path}: does not fit the network that {run.path / 'config.yaml'} describes."
                ) from error
        return results


def as_evaluated(config: ExperimentConfig, data_dir: str | None, accelerator: str) -> ExperimentConfig:
    """A run's configuration on one device of the kind asked for, with its data at `data_dir` if that is given."""
    plain = config.plain()
    plain["trainer"] |= {"accelerator": accelerator, "devices": 1, "num_nodes": 1}
    if plain["model"].get("pretrained") is not None:
        plain["model"]["pretrained"] = None  # its weights are a checkpoint's, wherever they once came from
    return validate({**plain, "data_dir": data_dir or config.data_dir})


def build_data(config: ExperimentConfig) -> DataModule:
    """The data module of a configuration."""
    accumulate = config.trainer.accumulate
    return DataModule(config.dataset, config.time_steps, config.seed, Path(config.data_dir), accumulate)


def require_samples(data: DataModule, split: Split) -> None:
    """Raises UserError where the data, already set up, have no samples in `split`."""
    if not len(data.samples.indices(split)):
        reason = " With dataset.val_fraction=0 all of them train." if split == "val" else ""
        raise UserError(f"The data set '{data.config.name}' has no samples in the split {split}.{reason}")


def build_trainer(
    config: ExperimentConfig, loggers: list[Logger], callbacks: list[L.Callback], validate: bool = True
) -> L.Trainer:
    """Lightning's trainer without the parts that we do ourselves (bar, summary, checkpoints, sampler)."""
    options = config.trainer
    return L.Trainer(
        max_epochs=options.max_epochs,
        accelerator=options.accelerator,
        devices=options.devices,
        num_nodes=options.num_nodes,
        strategy="ddp" if options.world_size > 1 else "auto",
        precision=PRECISIONS[options.precision],  # type: ignore[arg-type]
        gradient_clip_val=options.gradient_clip,
        accumulate_grad_batches=options.accumulate,
        limit_val_batches=1.0 if validate else 0,
        deterministic=options.deterministic,
        plugins=[AtomicFiles()],
        logger=loggers,
        callbacks=callbacks,
        enable_checkpointing=any(isinstance(callback, Checkpoints) for callback in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
    )


def load_checkpoint(path: Path, hint_best: Path | None = None) -> dict[str, Any]:
    """A checkpoint as plain dicts and tensors. Raises UserError when it is missing or damaged."""
    if not path.is_file():
        raise UserError(f"{path}: there is no such checkpoint.")
    try:
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    # torch names no common class for a file that is cut short, of another kind or unreadable.
    except Exception as error:
        hint = ""
        if hint_best and hint_best.is_file():
            hint = f" {hint_best} may still be whole: copy it to {path} to go on from there."
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(f"{path}: is damaged and cannot be loaded ({reason}).{hint}") from error
    missing = {"state_dict", "config", "epoch", "global_step", "metrics_bytes"} - set(checkpoint)
    if missing:
        raise UserError(f"{path}: is not a checkpoint of gradspike (it lacks {', '.join(sorted(missing))}).")
    return checkpoint


def check_device(options: TrainerConfig) -> None:
    """Raises UserError when the machine does not have what the configuration asks for; warns where it only pretends."""
    gpus = torch.cuda.device_count()
    wants_gpu = options.accelerator == "gpu" or (options.accelerator == "auto" and gpus > 0)
    if wants_gpu and gpus < options.devices:
        raise UserError(
            f"trainer.accelerator={options.accelerator} trainer.devices={options.devices}: this machine has {gpus} "
            "CUDA devices. Use trainer.accelerator=cpu or fewer devices."
        )
    if not wants_gpu and options.precision == "bf16" and not cpu_has_bf16():
        log.warning(
            "trainer.precision=bf16: this CPU has no bf16 arithmetic (AVX512-BF16 or AMX); a convolution takes several "
            "times longer than with trainer.precision=fp32."
        )


def cpu_has_bf16() -> bool:
    """Whether the CPU multiplies in bf16. With AVX-512 alone oneDNN says yes, and widens every number first."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def quieten() -> None:
    """Keep Lightning's hints and advice out of the output; errors still come through."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logging.getLogger("lightning.fabric").setLevel(logging.ERROR)
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # its finding CUDA's compiler but no GPU
    warnings.filterwarnings("ignore", module="lightning")
    warnings.filterwarnings("ignore", message=".*isinstance.treespec.*")
    log.setLevel(logging.INFO if is_first_process() else logging.ERROR)
    if not any(isinstance(handler, LogPrinter) for handler in log.handlers):
        log.addHandler(LogPrinter())
    log.propagate = False


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
    test = {"last": _test(trainer, module, data, load_checkpoint(last_path)["state_dict"])}
    seen = {"last": record.take()}
    if checkpoints.best["epoch"] == checkpoints.last["epoch"]:
        test["best"], seen["best"] = dict(test["last"]), seen["last"]
    else:
        test["best"] = _test(trainer, module, data, load_checkpoint(best_path)["state_dict"])
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


def _test(trainer: L.Trainer, module: SpikingClassifier, data: DataModule, state: dict[str, Any]) -> dict[str, float]:
    module.load_state_dict(state)
    trainer.test(module, datamodule=data, verbose=False)
    return dict(module.test_metrics)


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
