"""A trained network with all that predicting needs."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from gradspike.config.schema import ExperimentConfig
from gradspike.config.trust import outside, require_trusted
from gradspike.config.trust import trust as allow
from gradspike.config.validate import validate
from gradspike.data.augment.batch import BatchTransform
from gradspike.data.registry import DATASETS
from gradspike.data.source import Source
from gradspike.engine.registry import EngineName
from gradspike.errors import UserError
from gradspike.library.predict import Prediction, stored_samples
from gradspike.runs.folder import RunFolder
from gradspike.shown import expanded, shown
from gradspike.training.build import build_data, build_model, require_data_of
from gradspike.training.checkpoint import USABLE, load_checkpoint
from gradspike.training.device import check_device, device_type
from gradspike.training.engine_choice import first_engine
from gradspike.training.evaluate import as_evaluated

log = logging.getLogger("gradspike")


class TrainedModel(nn.Module):
    """A trained network in evaluation.

    Attributes:
        model: the backbone. It maps float inputs, images [B, C, H, W] or frames [T, B, C, H, W], to logits [T, B, K].
        transform: turns stored samples (uint8 images [B, C, H, W], or counts [B, T, 2, H, W]) into these inputs.
        class_names: by label; "0", "1", ... if the data set has no names.
        config: of its run, for this machine.
    """

    def __init__(self, model: nn.Module, config: ExperimentConfig, facts: Mapping[str, Any]) -> None:
        super().__init__()
        self.model = model.requires_grad_(False)
        self.config = config
        numbers = map(str, range(config.dataset.classes))
        self.class_names: tuple[str, ...] = tuple(facts["class_names"]) or tuple(numbers)
        self._source: Source[Any] = DATASETS.build(Source, config.dataset, config.time_steps, Path(config.data_dir))  # type: ignore[type-abstract]
        self._batch = BatchTransform(config.dataset, config.seed, tuple(facts["mean"]), tuple(facts["std"]))
        self.eval()

    @override
    def forward(self, inputs: Tensor) -> Tensor:
        """Logits per time step, [T, B, K]."""
        logits: Tensor = self.model(inputs)
        return logits

    @property
    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation per channel of stored values / 255, for data that are normalised by them."""
        return self._batch.mean, self._batch.std

    def transform(self, samples: Tensor) -> Tensor:
        """The network's input for stored samples, on their device, as in evaluation: no augmentation."""
        return self._batch(samples, torch.zeros(samples.shape[0], dtype=torch.int64, device=samples.device), None)

    @torch.no_grad()
    def predict(self, given: Any, span_us: tuple[int, int] | None = None) -> Prediction:
        """Predict one sample or a list of them; see `gradspike.library.predict.stored_samples` for what they may be.

        An image that does not have the network's size is scaled as in the preparation of the data set; events become
        frames with its number and kind of time bins. Raises UserError that says what does not fit.
        """
        device = next(self.model.parameters()).device
        samples = stored_samples(given, self._source, span_us)
        parts = torch.split(samples, self.config.dataset.eval_batch_size)
        logits = torch.cat([self(self.transform(part.to(device))) for part in parts], 1).float()
        probabilities = logits.mean(0).softmax(1)
        labels = probabilities.argmax(1)
        names = tuple(self.class_names[label] for label in labels.tolist())
        return Prediction(labels, names, probabilities, logits)


def load(
    run: str | Path,
    *,
    checkpoint: str = "best",
    device: str = "auto",
    engine: EngineName | None = None,
    data_dir: str | None = None,
    trust: bool = False,
) -> TrainedModel:
    """The trained network of a run, in evaluation.

    Args:
        run: a run folder, or a checkpoint file.
        checkpoint: of a run folder, best (by validation accuracy) or last.
        device: auto, cpu or gpu.
        engine: auto, eager, compiled or triton; None: the run's, or one that works here. A run with engine=auto is
            computed by eager on a CPU, where compiling takes longer than many predictions.
        data_dir: where the data set is, for checkpoints of older versions, which have neither statistics nor class
            names of their data.
        trust: import the code outside gradspike that the run names, also if this account never trained with it.

    Raises ConfigError or UserError if run, checkpoint or device cannot be used.
    """
    if checkpoint not in ("best", "last"):
        raise UserError(f"checkpoint={checkpoint}: must be best or last.")
    if device not in ("auto", "cpu", "gpu"):
        raise UserError(f"device={device}: must be auto, cpu or gpu.")
    file = expanded(run)
    if not file.is_file():
        file = RunFolder.open(str(run)).checkpoint(checkpoint)
    content = load_checkpoint(file, USABLE)
    if trust:
        allow(outside(content["config"]).values())
    require_trusted(content["config"], file)
    config = as_evaluated(validate(content["config"], recorded=True), data_dir, device, engine=engine)
    check_device(config.trainer, section="")
    model = build_model(config, first_engine(config) if engine is None else None)
    state = {
        name.removeprefix("model."): value for name, value in content["state_dict"].items() if name.startswith("model.")
    }
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(f"{shown(file)}: does not fit the network that its configuration describes.") from error
    if config.trainer.channels_last:
        model = model.to(memory_format=torch.channels_last)
    facts = content.get("input") or _facts_of_data(config, content, file)
    return TrainedModel(model.to(device_type(device)), config, facts)


def _facts_of_data(config: ExperimentConfig, content: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """What newer checkpoints contain, from the data set itself. Raises UserError if it is not that of the run."""
    log.warning(
        "%s has neither statistics nor class names of its data. Reading them from dataset=%s in data_dir=%s.",
        shown(file),
        config.dataset.name,
        config.data_dir,
    )
    data = build_data(config)
    data.prepare_data()
    data.setup()
    require_data_of(content, data)
    return data.input_facts()
