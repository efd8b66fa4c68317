"""The schema of the composed configuration: every key with its type and range.

Imports pydantic only, so mistakes are reported before torch is imported. The options of methods, models and data sets
are validated by the option classes of their registries.
"""

from __future__ import annotations

import math
import os
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from gradspike.config.wandb_options import WandbConfig
from gradspike.data.options.base import DatasetConfig
from gradspike.engine.registry import EngineName
from gradspike.methods.options import MethodConfig
from gradspike.models.options import ModelConfig
from gradspike.neurons.options import NeuronConfig
from gradspike.norms.options import NormConfig
from gradspike.registry import Strict
from gradspike.touches import Budget, Devices, Form, Result, Seed, Shown, Speed, Start, Touches

PathText = Annotated[str, Field(min_length=1), AfterValidator(os.path.expanduser)]
AbsolutePath = Annotated[PathText, AfterValidator(os.path.abspath)]
"""The same file from every working folder: its content affects the result."""
Fraction = Annotated[float, Field(ge=0, lt=1)]


def _number_or_one_hot(value: Any) -> Any:
    """Refuse everything else in one sentence, where pydantic has one for each type."""
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if number or value == "one_hot":
        return value
    raise ValueError("must be a finite number or one_hot")


class LossConfig(Strict):
    """The loss over the logits o[t], and mixup and CutMix.

    One flat schema for all losses, because a recipe can set values but not switch groups. ce: cross entropy of the mean
    over time. tet (Deng et al., ICLR 2022): (1 - tet_lambda) mean_t CE(o[t], y) + tet_lambda MSE(o[t], tet_target).
    `loss=ce_mse` is tet with the weight and target of SLTT and CLIF. A loss outside gradspike is an import path; its
    options are a subclass of this class.
    """

    touches: ClassVar[Touches] = Touches.RESULT

    name: str
    label_smoothing: Fraction = 0.0
    tet_lambda: Annotated[float, Field(ge=0, le=1)] = 1e-3
    tet_target: Annotated[float | Literal["one_hot"], BeforeValidator(_number_or_one_hot)] = 1.0
    """A number for all logits, or one_hot: 1 for the class of the sample and 0 for the others (shares if mixed)."""
    mixup: NonNegativeFloat = 0.0
    """alpha of mixup (Zhang et al., ICLR 2018); 0 turns it off."""
    cutmix: NonNegativeFloat = 0.0
    """alpha of CutMix (Yun et al., ICCV 2019); 0 turns it off. With both on, each batch draws one of them."""
    mix_probability: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Share of batches to mix if mixup or cutmix is on."""
    mixing_off_epoch: PositiveInt | None = None
    """Number of epochs after which no batch is mixed any more; null: all are."""

    @model_validator(mode="after")
    def _something_to_turn_off(self) -> LossConfig:
        if self.mixing_off_epoch is not None and not (self.mixup or self.cutmix):
            raise ValueError("mixing_off_epoch needs mixup or cutmix above 0")
        return self

    @model_validator(mode="after")
    def _ce_has_no_distance(self) -> LossConfig:
        for key in ("tet_lambda", "tet_target") if self.name == "ce" else ():
            if getattr(self, key) != LossConfig.model_fields[key].default:
                raise ValueError(
                    f"{key}={getattr(self, key)}: loss.name=ce has no such term; choose loss=tet or ce_mse"
                )
        return self


class GroupConfig(Strict):
    """Options for parameters whose names match a pattern. If several patterns match, the last one counts."""

    touches: ClassVar[Touches] = Touches.RESULT

    lr: PositiveFloat = 1.0
    """Factor of the learning rate."""
    weight_decay: NonNegativeFloat | None = None
    """Weight decay of these parameters; null: the same as for the others."""


class OptimizerConfig(Strict):
    """Options of every optimiser. A subclass names its class and where that is; its own options are the arguments."""

    touches: ClassVar[Touches] = Touches.RESULT
    module: ClassVar[str] = "torch.optim"
    class_name: ClassVar[str]

    name: str
    lr: PositiveFloat
    weight_decay: NonNegativeFloat = 0.0
    decay_all: bool = False
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Factor of the learning rate from one layer to the one before it; the last layer has `lr`. 1: the same for all."""
    groups: dict[str, GroupConfig] = Field(default_factory=dict)

    def arguments(self) -> dict[str, Any]:
        """Arguments of the torch class besides those of the parameter groups."""
        return {
            name: getattr(self, name) for name in type(self).model_fields if name not in OptimizerConfig.model_fields
        }


class SgdConfig(OptimizerConfig):
    """torch.optim.SGD."""

    class_name = "SGD"

    name: Literal["sgd"]
    momentum: Fraction = 0.9
    nesterov: bool = False

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> SgdConfig:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov=true needs a momentum above 0")
        return self


class AdamWConfig(OptimizerConfig):
    """torch.optim.AdamW."""

    class_name = "AdamW"

    name: Literal["adamw"]
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)


class LambConfig(OptimizerConfig):
    """timm.optim.Lamb: LAMB (You et al., ICLR 2020)."""

    module = "timm.optim"
    class_name = "Lamb"

    name: Literal["lamb"]
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    max_grad_norm: PositiveFloat | None = 1.0
    """Norm that the gradients of all parameters together are scaled down to; null: they stay as they are."""


AnyOptimizer = SgdConfig | AdamWConfig | LambConfig
OPTIMIZERS: dict[str, type[OptimizerConfig]] = {
    get_args(kind.model_fields["name"].annotation)[0]: kind for kind in get_args(AnyOptimizer)
}


class SchedulerConfig(Strict):
    """The learning rate during training, as a fraction of the optimiser's: linear warm-up, then cosine or constant."""

    touches: ClassVar[Touches] = Touches.RESULT

    name: Literal["cosine", "constant"]
    warmup_epochs: NonNegativeInt = 0
    final_fraction: Annotated[float, Field(ge=0, le=1)] = 0.0
    interval: Literal["step", "epoch"] = "step"


class TrainerConfig(Strict):
    """Training length, devices and numerical options."""

    max_epochs: Budget[PositiveInt]
    max_hours: Shown[PositiveFloat | None] = None
    """Hours after which a session saves its state and stops; a resumed run has as many again."""
    accumulate: Devices[PositiveInt] = 1
    """Number of parts into which a batch is split to save memory; an optimiser step still uses the whole batch."""
    ema: Result[Annotated[float, Field(gt=0, lt=1)] | None] = None
    """Decay per step of an exponential moving average of the weights, which replaces them in evaluation; null turns it
    off. A plain mean of all steps until enough steps are done."""
    compile: Speed[bool] = False
    cuda_graphs: Speed[bool] = False
    """Whether the network's part of a training step on a GPU is two CUDA graphs; see `gradspike.training.graphed`."""
    accelerator: Devices[Literal["auto", "cpu", "gpu"]] = "auto"
    devices: Devices[PositiveInt] = 1
    num_nodes: Devices[PositiveInt] = 1
    wait_seconds: Shown[PositiveFloat] = 1800.0
    """How long processes that train together wait for missing ones at the start."""
    precision: Form[Literal["fp32", "bf16"]] = "fp32"
    tf32: Form[bool] = True
    """Whether convolutions in float32 may use TF32 on a GPU (10 bits of mantissa), as they do in torch unless told
    otherwise. Matrix products stay in float32."""
    channels_last: Speed[bool] = True
    gradient_clip: Result[PositiveFloat | None] = None
    pack_spikes: Speed[bool] = False
    """Whether spikes wait for the backward pass as bits; see `gradspike.packed_spikes`."""
    keep_memory: Speed[bool] = True
    """Whether memory that a step on a CPU releases stays with the process; see `gradspike.training.kept_memory`."""
    deterministic: Speed[bool] = True
    progress: Shown[Literal["auto", "bar", "lines", "none"]] = "auto"

    @property
    def world_size(self) -> int:
        """Number of processes that train together."""
        return self.devices * self.num_nodes


class FilesLoggerConfig(Strict):
    """Only the files in the run folder."""

    touches: ClassVar[Touches] = Touches.SHOWN

    name: Literal["files"]


class TensorBoardConfig(Strict):
    """TensorBoard event files in the run folder."""

    touches: ClassVar[Touches] = Touches.SHOWN

    name: Literal["tensorboard"]


class CheckpointConfig(Strict):
    """When to save checkpoints in addition to the end of each epoch, and how many to keep."""

    touches: ClassVar[Touches] = Touches.SHOWN

    every_n_steps: PositiveInt | None = None
    keep: PositiveInt = 2
    """How many of the newest states to keep: last.ckpt, last-1.ckpt and so on."""


class ProbeConfig(Strict):
    """How often and on how many samples spiking layers are measured during training; see `training.probe.probe`."""

    touches: ClassVar[Touches] = Touches.SHOWN

    enabled: bool = True
    every_n_steps: PositiveInt = 100
    samples: PositiveInt = 16
    histogram_bins: Annotated[int, Field(ge=0, le=256)] = 16


class PublishedConfig(Strict):
    """A published accuracy (percent), its spread over seeds if known, and its settings."""

    accuracy: float
    spread: float | None = None
    when: dict[str, float | int | str | bool] = Field(default_factory=dict)
    """Dotted keys of the configuration and their values, for example {time_steps: 2}."""


class RecipeConfig(Strict):
    """The source of a recipe's settings, and the accuracies published for them."""

    name: str
    source: str
    published: tuple[PublishedConfig, ...] = ()
    notes: tuple[str, ...] = ()


LoggerConfig = Annotated[FilesLoggerConfig | TensorBoardConfig | WandbConfig, Field(discriminator="name")]


class ExperimentConfig(Strict):
    """The complete configuration of a run: everything that affects its result."""

    seed: Seed[Annotated[int, Field(ge=0, lt=2**31)]]
    time_steps: Result[Annotated[int, Field(ge=1, le=1000)]]
    engine: Speed[EngineName]
    data_dir: Shown[PathText]
    runs_dir: Start[PathText]
    resume: Start[PathText | None] = None
    init_from: Result[AbsolutePath | None] = None
    recipe: Start[RecipeConfig | None] = None
    dataset: DatasetConfig
    model: ModelConfig
    method: MethodConfig
    neuron: NeuronConfig
    norm: NormConfig
    loss: LossConfig
    optimizer: Annotated[AnyOptimizer, Field(discriminator="name")]
    scheduler: SchedulerConfig
    trainer: TrainerConfig
    logger: LoggerConfig
    checkpoint: CheckpointConfig
    probe: ProbeConfig = ProbeConfig()

    def plain(self) -> dict[str, Any]:
        """The configuration as plain dicts, lists and scalars, as saved in config.yaml."""
        plain: dict[str, Any] = self.model_dump(mode="json", serialize_as_any=True)
        return plain

    def label(self) -> str:
        """`<method>_<dataset>_<model>`, the middle part of a run's name."""
        return f"{self.method_label()}_{short_name(self.dataset.name)}_{short_name(self.model.name)}"

    def method_label(self) -> str:
        """The name that groups runs: the label of a variant, else the method's name; `relu` for the ANN twin."""
        if self.model.activation == "relu":
            return "relu"
        return self.method.label or short_name(self.method.name)


def short_name(name: str) -> str:
    """A part's name for use in file names: only the class of an import path."""
    return name.rpartition(":")[2]
