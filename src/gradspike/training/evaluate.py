"""Evaluate checkpoints, and load what an evaluation needs: data, samples, weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import torch

from gradspike.config.schema import ExperimentConfig
from gradspike.config.validate import validate
from gradspike.data.datamodule import DataModule
from gradspike.data.source import Split
from gradspike.errors import UserError
from gradspike.runs.folder import RunFolder
from gradspike.training.callbacks.interrupt import KeepListening, SignalGuard
from gradspike.training.module import SpikingClassifier
from gradspike.training.trainer import build_trainer, check_device, quieten


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
                results[path.stem] = evaluate_weights(trainer, module, data, state)
            except RuntimeError as error:
                if "state_dict" not in str(error):
                    raise
                raise UserError(
                    f"{path}: does not fit the network that {run.path / 'config.yaml'} describes."
                ) from error
            if module.test_problem:
                raise UserError(f"{path}: {module.test_problem}. The accuracy would mean nothing.")
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


def evaluate_weights(
    trainer: L.Trainer, module: SpikingClassifier, data: DataModule, state: dict[str, Any]
) -> dict[str, float]:
    """Load `state` into the module and evaluate it on the data module's test split.

    The numbers are NaN where samples or network are not finite; `module.test_problem` says which.
    """
    module.load_state_dict(state)
    trainer.test(module, datamodule=data, verbose=False)
    return dict(module.test_metrics)
