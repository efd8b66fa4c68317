"""Any convolutional network of timm, as a spiking network, or unchanged as the ANN twin."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import timm
from pydantic import Field, field_validator
from torch import Tensor, nn

from gradspike.data.options.base import DatasetConfig
from gradspike.errors import ConfigError, first_line
from gradspike.models.blocks import fold_time, unfold_time
from gradspike.models.options import ModelConfig
from gradspike.models.pooling import make_deterministic
from gradspike.models.timm.convert import Conversion, convert
from gradspike.models.timm.sites import NotConvertible, check_kind
from gradspike.models.timm.trace import DoesNotRun, NotTraceable, check_runs, trace
from gradspike.models.timm.weights import load_pretrained
from gradspike.shown import counted, listed
from gradspike.spiking_norm import LayerContext, steps_of_pass

SHOWN = 3  # names in a line

TIMM_OPTIONS_SET_ELSEWHERE = {
    **dict.fromkeys(("pretrained", "checkpoint_path"), "load weights with model.pretrained=<file>"),
    "num_classes": "it follows from the data set",
    "in_chans": "it follows from the data set",
}


class TimmConfig(ModelConfig):
    """Any convolutional network of timm as a spiking network; `name` is timm's name."""

    needs_space: ClassVar[bool] = True

    library: Literal["timm"] = "timm"
    pretrained: str | None = None
    """A local file (.pth, .pt, .safetensors) of weights in timm's names."""
    spiking_gates: bool = False
    """Also make activations inside squeeze-excite and other gates spike; by default they stay real-valued."""
    residual: Literal["auto", "sew", "membrane", "as_is"] = "as_is"
    """Where residual blocks spike: before the sum, first in the branch, or after the sum as in timm.

    The default is that of runs recorded before there was the option; new ones have auto from their YAML."""
    options: dict[str, Any] = Field(default_factory=dict)
    """More arguments of timm.create_model, such as drop_path_rate; they depend on the network."""

    @field_validator("options")
    @classmethod
    def _set_elsewhere(cls, options: dict[str, Any]) -> dict[str, Any]:
        for key in options:
            if key in TIMM_OPTIONS_SET_ELSEWHERE:
                raise ValueError(f"{key} cannot be set here; {TIMM_OPTIONS_SET_ELSEWHERE[key]}")
        return options


@dataclass(frozen=True)
class TimmReport:
    """A report on a timm network. `conversion` is None for the ANN twin, which is timm's network itself."""

    name: str
    conversion: Conversion | None
    pretrained: str | None = None
    notes: tuple[str, ...] = field(default=())

    def lines(self) -> list[str]:
        """The report as lines of text."""
        source = f"weights of {self.pretrained}" if self.pretrained else "random weights"
        lines = [f"timm {timm.__version__} {self.name}, {source}", *self.notes]
        done = self.conversion
        if done is None:
            return [*lines, "ANN twin: timm's network, unchanged"]
        lines += [
            f"spiking: {len(done.pairs)} x batch norm + activation, {len(done.neurons)} x activation alone",
            f"unchanged: {counted(len(done.norms), 'batch norm')}, {counted(len(done.other_norms), 'other norm')}, "
            f"{counted(len(done.gates), 'activation')} of gates",
        ]
        lines.append(self._residual(done))
        if done.skipping and done.form != "as_is":
            lines.append(
                f"shortcuts read some positions alone: {listed(done.skipping, SHOWN)}. Where timm's network has an "
                "option for it, let them average: +model.options.avg_down=true (ResNet) or downsample=avg (RegNet)"
            )
        if not done.pairs and not done.norms:
            lines.append("warning: no batch norm, so nothing keeps the currents near the threshold")
        if done.woken:
            woken = listed(done.woken, SHOWN)
            lines.append(f"initial gain 1 instead of timm's 0, with which nothing fires: {woken}")
        if done.scaled:
            lines.append(
                "initial gain alpha * V_th in shortcuts, and alpha * V_th / sqrt(blocks) at the ends of branches: "
                f"{listed(done.scaled, SHOWN)}"
            )
        if done.opened:
            lines.append(
                "initial gain alpha * V_th / sqrt(2) instead of timm's 0, with which gradients may not pass the next "
                f"sum: {listed(done.opened, SHOWN)}"
            )
        if done.relays:
            relays = listed(done.relays, SHOWN)
            lines.append(f"initial mean current 0.75 V_th, because the input is pooled spikes: {relays}")
        lines.append(
            f"still images are computed once up to {listed(done.still, SHOWN)}"
            if done.still
            else "still images are repeated in time before the first spiking layer"
        )
        return lines

    def _residual(self, done: Conversion) -> str:
        where = {"sew": "before the sum", "membrane": "first in the branch", "as_is": "after the sum"}[done.form]
        if done.blocks or done.others:
            why = f"; the sums in {', '.join(done.others)} belong to no residual block" if done.others else ""
            return f"residual blocks: {done.form}, {counted(done.blocks, 'block')} with neurons {where}{why}"
        return "residual blocks: none has an activation after its sum"


class TimmNetwork(nn.Module):
    """timm's network with spiking layers as activations; unchanged with `model.activation=relu`.

    Attributes:
        network: the converted graph, forward(x, static), or timm's own module.
        report: what was converted and what is unchanged.
    """

    Config: ClassVar[type[TimmConfig]] = TimmConfig

    def __init__(self, config: TimmConfig, dataset: DatasetConfig, context: LayerContext) -> None:
        super().__init__()
        self.time_steps = context.time_steps
        self.spiking = context.activation == "spike"
        network = create(config, dataset)
        conversion = None
        try:
            if self.spiking:
                check_kind(network)
            check_runs(network, dataset.channels, dataset.image_size, dataset.classes)
            notes = load_pretrained(network, config.pretrained) if config.pretrained else []
            if self.spiking:
                network = graph = trace(network, dataset.channels, dataset.image_size)
                trained = config.pretrained is not None
                conversion = convert(graph, context, config.spiking_gates, trained, config.residual)
        except (NotTraceable, NotConvertible) as error:
            raise ConfigError(f"model.name={config.name} cannot be made a spiking network: {error}.") from error
        except DoesNotRun as error:
            raise ConfigError(f"model.name={config.name} {error}.") from error
        make_deterministic(network)
        self.network = network
        self.report = TimmReport(config.name, conversion, config.pretrained, tuple(notes))

    def forward(self, inputs: Tensor) -> Tensor:
        """Images [B, C, H, W] or frames [T, B, C, H, W] -> logits per step [T, B, K]."""
        x, static = fold_time(inputs)
        if self.spiking:
            return unfold_time(self.network(x, static), self.time_steps)
        logits = self.network(x)
        # For a still image, the twin's logits are the same at every step: computed once and expanded without a copy.
        steps = steps_of_pass(self.time_steps)
        return logits.expand(steps, *logits.shape) if static else unfold_time(logits, steps)


def create(config: TimmConfig, dataset: DatasetConfig) -> nn.Module:
    """timm's network for the data set's channels and classes. Raises ConfigError for an unknown name or option."""
    if not timm.is_model(config.name):
        close = difflib.get_close_matches(config.name, timm.list_models(), n=5, cutoff=0.5)
        near = f" Did you mean one of {', '.join(close)}?" if close else ""
        raise ConfigError(
            f"unknown network '{config.name}' in timm {timm.__version__}.{near} All names: "
            "python -c 'import timm; print(*timm.list_models())'."
        )
    try:
        network: nn.Module = timm.create_model(
            config.name, pretrained=False, num_classes=dataset.classes, in_chans=dataset.channels, **config.options
        )
    except Exception as error:  # a network's code may raise anything for an option, a size or a number of channels
        raise ConfigError(
            f"model.name={config.name} model.options={config.options}: timm cannot build it ({first_line(error)})."
        ) from error
    return network
