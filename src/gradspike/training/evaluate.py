"""Evaluates a run's checkpoints on one split of its data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L

from gradspike.config.schema import ExperimentConfig
from gradspike.config.validate import validate
from gradspike.data.datamodule import DataModule
from gradspike.data.source import Split
from gradspike.engine.registry import EngineName, runnable_engine
from gradspike.errors import UserError
from gradspike.runs.folder import RunFolder
from gradspike.training.build import build_data, require_data_of, require_samples
from gradspike.training.callbacks.interrupt import KeepListening, SignalGuard
from gradspike.training.checkpoint import load_checkpoint
from gradspike.training.device import check_device, device_type
from gradspike.training.engine_choice import first_engine, settle_engine
from gradspike.training.first_weights import without_first_weights
from gradspike.training.module import SpikingClassifier
from gradspike.training.trainer import build_trainer, quieten


def evaluate(
    run: RunFolder,
    checkpoints: list[Path],
    split: Split,
    data_dir: str | None,
    accelerator: str,
    batch_size: int | None = None,
    workers: int | None = None,
    source: str | None = None,
    engine: EngineName | None = None,
) -> dict[str, dict[str, float]]:
    """Accuracy, loss and firing rate of each checkpoint on `split`, by the checkpoint's name.

    Raises UserError for everything the user can fix, including samples other than those used for training.
    """
    quieten()
    config = as_evaluated(run.config(), data_dir, accelerator, batch_size, workers, source, engine)
    check_device(config.trainer, section="")
    with SignalGuard() as guard:
        contents = {path: load_checkpoint(path) for path in checkpoints}
        data, module = build_data(config), SpikingClassifier(config, first_engine(config))
        data.prepare_data()
        data.setup()
        require_samples(data, split)
        settle_engine(module.model, config, len(data.samples.indices("train")))
        data.test_split = split
        trainer = build_trainer(config, loggers=[], callbacks=[KeepListening(guard)])
        results = {}
        for path, content in contents.items():
            require_data_of(content, data)
            try:
                results[path.stem] = evaluate_weights(trainer, module, data, content["state_dict"])
            except RuntimeError as error:
                if "state_dict" not in str(error):
                    raise
                raise UserError(
                    f"{path}: does not fit the network that {run.path / 'config.yaml'} describes."
                ) from error
            if module.test_problem:
                raise UserError(f"{path}: {module.test_problem}. Its accuracy would be meaningless.")
        return results


def as_evaluated(
    config: ExperimentConfig,
    data_dir: str | None,
    accelerator: str,
    batch_size: int | None = None,
    workers: int | None = None,
    source: str | None = None,
    engine: EngineName | None = None,
) -> ExperimentConfig:
    """A run's configuration on one device of the given kind; other arguments that are given replace the run's.

    Without `engine`, it is the run's own or one that runs on that device.
    source: where the data set's files are now. Raises ConfigError if it has no `dataset.source`.
    """
    plain = without_first_weights(config).plain()
    own = {"eval_batch_size": batch_size, "workers": workers}
    plain["dataset"] |= {key: value for key, value in own.items() if value is not None}
    plain["trainer"] |= {"accelerator": accelerator, "devices": 1, "num_nodes": 1}
    if config.model.activation == "spike":
        plain["engine"] = runnable_engine(config.engine, device_type(accelerator))
    if source is not None:
        plain["dataset"]["source"] = source
    return validate(
        {**plain, "data_dir": data_dir or config.data_dir, "engine": engine or plain["engine"]}, recorded=True
    )


def evaluate_weights(
    trainer: L.Trainer, module: SpikingClassifier, data: DataModule, state: dict[str, Any]
) -> dict[str, float]:
    """Load `state` into the module and evaluate it on the data module's test split.

    The numbers are NaN if samples or network are not finite; `module.test_problem` gives the reason.
    """
    module.load_state_dict(state)
    trainer.test(module, datamodule=data, verbose=False)
    return dict(module.test_metrics)
