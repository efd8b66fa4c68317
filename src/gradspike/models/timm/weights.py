"""Weights from a local file in timm's names, loaded before anything is converted."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import timm
import torch
from timm.models import load_state_dict
from timm.models._manipulate import adapt_input_conv
from torch import Tensor, nn

from gradspike.errors import ConfigError, UserError, first_line, unknown_path
from gradspike.shown import counted, expanded, listed

SHOWN = 4  # names in a message


def load_pretrained(network: nn.Module, path: str) -> list[str]:
    """Load a .pth, .pt or .safetensors file into a timm network. Returns notes on changed or skipped weights.

    A classifier of another size keeps its random weights. A first convolution with another number of input channels is
    adapted as timm does it (summed for one channel, repeated and scaled for others).

    Raises ConfigError if the file does not exist or its weights do not fit, UserError if it cannot be read.
    """
    weights = read_weights(expanded(path), f"model.pretrained={path}")
    own = network.state_dict()
    notes = []
    for name in _layers_of(network, "classifier"):
        for key in (f"{name}.weight", f"{name}.bias"):
            if key in weights and key in own and weights[key].shape != own[key].shape:
                notes.append(f"{key}: {list(weights[key].shape)} in the file, stays random with {list(own[key].shape)}")
                weights[key] = own[key]
    for name in _layers_of(network, "first_conv"):
        key = f"{name}.weight"
        if key in weights and key in own and weights[key].shape[1:2] != own[key].shape[1:2]:
            before = weights[key].shape[1]
            # Before 1.0.31, timm adapts weights for three channels only.
            others = () if before == 3 else (before,)
            try:
                weights[key] = adapt_input_conv(own[key].shape[1], weights[key], *others)
            except (TypeError, NotImplementedError) as error:
                raise ConfigError(
                    f"model.pretrained={path}: {key} has {counted(before, 'input channel')}, which timm "
                    f"{timm.__version__} cannot adapt; install timm 1.0.31 or newer."
                ) from error
            notes.append(f"{key}: adapted from {before} to {counted(own[key].shape[1], 'input channel')}")
    missing = [key for key in own if key not in weights and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in weights if key not in own]
    other = [key for key in own if key in weights and weights[key].shape != own[key].shape]
    problems = [
        f"{what}: {listed(keys, SHOWN)}"
        for what, keys in (("missing", missing), ("not in the network", unexpected), ("with another shape", other))
        if keys
    ]
    if problems:
        raise ConfigError(
            f"model.pretrained={path}: does not fit the network of model.name and model.options, a "
            f"{type(network).__name__} ({'; '.join(problems)})."
        )
    network.load_state_dict(weights, strict=False)
    return notes


def read_weights(path: Path, where: str) -> dict[str, Tensor]:
    """The tensors of a .pth, .pt or .safetensors file by name; without the prefixes of wrappers that timm knows.

    where: key and value that the user typed. Raises ConfigError if there is no file, UserError if it cannot be read.
    """
    if not path.is_file():
        raise ConfigError(f"{where.partition('=')[0]}: {unknown_path('file', path)}")
    try:
        weights = load_state_dict(str(path), weights_only=True)
    # torch and safetensors have no common class of errors for files that are truncated or of another kind.
    except Exception as error:
        reason = first_line(error)
        if re.search("weights.only", str(error), re.IGNORECASE):  # torch's own advice is to read it nevertheless
            reason = "it contains more than tensors, and reading it could run code; save its state_dict"
        raise UserError(f"{where}: cannot be read as weights ({reason}).") from error
    if not weights or not all(isinstance(value, torch.Tensor) for value in weights.values()):
        raise UserError(f"{where}: contains no dictionary of weights.")
    return weights


def _layers_of(network: nn.Module, role: str) -> Iterable[str]:
    """Names of the modules that timm lists as the network's classifier or first convolution."""
    names = getattr(network, "pretrained_cfg", {}).get(role) or ()
    return (names,) if isinstance(names, str) else tuple(names)
