"""Starts a new run from given weights: of another run, of a checkpoint, or of a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor, nn

from gradspike.config.schema import ExperimentConfig
from gradspike.errors import ConfigError
from gradspike.runs.start import KEY
from gradspike.shown import counted, listed, shown
from gradspike.spiking_norm import SpikingNorm
from gradspike.training.checkpoint import USABLE, load_checkpoint, state_hash
from gradspike.training.engine_choice import first_engine
from gradspike.training.first_weights import CHECKPOINT, without_first_weights
from gradspike.training.module import SpikingClassifier

SHOWN = 4
"""Names in a message."""
DIGITS = 12
"""Of a digest."""
FREE = ("neuron", "method", "norm", "potential_norm")
"""Parts of a spiking layer that another method, neuron or norm may lack, or have in another shape."""


@dataclass(frozen=True)
class Started:
    """A module with its first weights, and what to log about them."""

    module: SpikingClassifier
    lines: tuple[str, ...] = ()


def started(config: ExperimentConfig, file: Path | None, saved: bool = False) -> Started:
    """A new module with the weights of `file`, or with random ones.

    saved: a checkpoint follows, so the file that `model.pretrained` names is not read; it may be gone.

    A checkpoint's weights must be those of this backbone. The head, the last linear layer, keeps its random weights if
    it has another size. So do values of neurons, methods and norms that the file does not have in this shape, because
    weights may be used with another method. Everything else that is missing, in excess or of another shape is refused
    with ConfigError. For a timm network, a file of weights that is not from gradspike has timm's names and is loaded
    as model.pretrained is.
    """
    if file is None:
        return Started(_of_a_checkpoint(config) if saved else SpikingClassifier(config, first_engine(config)))
    library = getattr(config.model, "library", None)
    source = f"start: weights of {shown(file)}"
    if file.suffix == CHECKPOINT:
        content = load_checkpoint(file, USABLE)
        prefix = "model."
        found = content["state_dict"].items()
        weights = {name.removeprefix(prefix): value for name, value in found if name.startswith(prefix)}
        source += f", epoch {content['epoch'] + 1}"
    elif library == "timm":
        network = config.model.model_copy(update={"pretrained": str(file)})
        module = SpikingClassifier(config.model_copy(update={"model": network}), first_engine(config))
        module.config = config
        return Started(module, (source,))
    else:
        from gradspike.models.timm.weights import read_weights

        weights = read_weights(file, f"{KEY}={file}")
    module = SpikingClassifier(config, first_engine(config))
    lines = load_weights(module.model, weights, f"{KEY}={file}")
    return Started(module, (f"{source}, sha256 {state_hash(weights)[:DIGITS]}", *lines))


def _of_a_checkpoint(config: ExperimentConfig) -> SpikingClassifier:
    """A module whose first weights do not matter. Its report names the file that the run started from."""
    used = without_first_weights(config)
    module = SpikingClassifier(used, first_engine(used))
    module.config = config
    if (pretrained := getattr(config.model, "pretrained", None)) is not None:
        module.model.report = replace(module.model.report, pretrained=pretrained)  # type: ignore[assignment,type-var,arg-type]
    return module


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], where: str) -> list[str]:
    """Load weights into a network. Returns a line for each kind of value that was left out; see `started`.

    where: what the user typed, for ConfigError.
    """
    own = model.state_dict()
    free = _free(model)
    used: dict[str, Tensor] = {}
    other: dict[bool, list[str]] = {True: [], False: []}
    lacking: dict[bool, list[str]] = {True: [], False: []}
    for name, value in own.items():
        if name not in weights:
            lacking[name.startswith(free)].append(name)
        elif weights[name].shape != value.shape:
            text = f"{name} {list(weights[name].shape)} instead of {list(value.shape)}"
            other[name.startswith(free)].append(text)
        else:
            used[name] = weights[name]
    excess: dict[bool, list[str]] = {True: [], False: []}
    for name in weights.keys() - own.keys():
        excess[name.startswith(free)].append(name)
    kinds = (
        ("missing", [name for name in lacking[False] if not name.endswith("num_batches_tracked")]),
        ("not in the network", excess[False]),
        ("with another shape", other[False]),
    )
    if problems := [f"{what}: {listed(sorted(names), SHOWN)}" for what, names in kinds if names]:
        raise ConfigError(
            f"{where}: does not fit the network, a {type(model).__name__} ({'; '.join(problems)}). Choose the model, "
            "image size and channels that it was trained with."
        )
    model.load_state_dict(used, strict=False)
    lines = (
        ("another shape, stays as it starts", other[True]),
        ("not in the file, stays as it starts", lacking[True]),
        ("only in the file, left out", sorted(excess[True])),
    )
    return [f"start: {what}: {counted(len(names), 'value')}, {listed(names, SHOWN)}" for what, names in lines if names]


def _free(model: nn.Module) -> tuple[str, ...]:
    """Beginnings of the names of values that may be missing."""
    layers = [name for name, layer in model.named_modules() if isinstance(layer, SpikingNorm)]
    heads = [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear)]
    return (*(f"{name}.{part}." for name in layers for part in FREE), *(f"{name}." for name in heads[-1:]))
