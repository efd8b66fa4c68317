"""Whether a run ended as the unbroken one did, byte for byte."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from gradspike.errors import UserError
from gradspike.runs.folder import RunFolder
from gradspike.training.checkpoint import load_checkpoint

FILES = ("metrics.jsonl", "summary.json", "confusion.json", "layers.json", "neurobench.json")
"""Those that contain no times."""


CHECKPOINTS = ("last.ckpt", "best.ckpt")


def differences(one: RunFolder, other: RunFolder, checkpoints: Sequence[str] = CHECKPOINTS) -> list[str]:
    """What differs between two runs: entries of their checkpoints (weights, averages, optimiser, random states,
    progress) and files.
    """
    found: list[str] = []
    for name in checkpoints:
        try:
            contents = [load_checkpoint(run.checkpoints / name) for run in (one, other)]
        except UserError as error:
            found.append(str(error))
            continue
        found += [f"{name}: {path}" for path in unequal(*contents)]
    for file in FILES:
        if _bytes(one.path / file) != _bytes(other.path / file):
            found.append(file)
    return found


def unequal(one: Any, other: Any, path: str = "") -> Iterator[str]:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        if one.dtype != other.dtype or not torch.equal(one, other):
            yield path
    elif isinstance(one, dict) and isinstance(other, dict):
        for key in one.keys() | other.keys():
            if key not in one or key not in other:
                yield f"{path}/{key} is in one only"
            else:
                yield from unequal(one[key], other[key], f"{path}/{key}")
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        for number, pair in enumerate(zip(one, other, strict=True)):
            yield from unequal(*pair, f"{path}/{number}")
    elif one != other:
        yield path


def _bytes(file: Path) -> bytes | None:
    return file.read_bytes() if file.is_file() else None
