"""Checkpoint files: written atomically, checked when read."""

from __future__ import annotations

import hashlib
import os
import pickle
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor
from typing_extensions import override

from gradspike.errors import UserError, causes, unknown_path
from gradspike.exhausted import is_out_of_memory, not_written, raise_if_exhausted
from gradspike.runs.folder import RunFolder
from gradspike.shown import counted

DIGEST = "tensors_sha256"
DAMAGED = "damaged.ckpt"
"""The new name of an unreadable last.ckpt when a resumed run saves."""


class AtomicFiles(TorchCheckpointIO):
    """Writes a checkpoint to a file beside its target and renames it; Lightning uses the system's temporary folder.

    Keeps the `keep` newest of `last.ckpt`: last.ckpt, last-1.ckpt and so on.
    """

    def __init__(self, keep: int = 1) -> None:
        super().__init__()
        self.keep = keep
        self._resumed_from: Path | None = None

    @override
    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        target = Path(path)
        temporary = target.with_name(f".{target.name}.partial")
        content = {**checkpoint, DIGEST: state_hash(dict(_tensors(checkpoint)))}
        try:
            with temporary.open("wb") as file:
                torch.save(content, file)
                file.flush()
                os.fsync(file.fileno())
            if target.name == "last.ckpt":
                self._keep_older(target)
            temporary.replace(target)
        except (OSError, RuntimeError) as error:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            # torch.save reports an error of its own.
            cause = next((one for one in causes(error) if isinstance(one, OSError)), None)
            if cause is None:
                raise
            kept = " The previous checkpoint is unchanged." if target.exists() else ""
            raise not_written(target, cause, verb="be saved", more=kept) from error

    @override
    def load_checkpoint(self, path: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        self._resumed_from = Path(path)
        return load_checkpoint(self._resumed_from)

    def _keep_older(self, last: Path) -> None:
        """Make room for a new last.ckpt. If links are possible, the old one stays in place until then."""
        resumed_from, self._resumed_from = self._resumed_from, None
        if not last.exists():
            return
        if resumed_from not in (None, last):  # the damaged newest one must not displace a good older one
            last.replace(last.with_name(DAMAGED))
            return
        names = [last, *(last.with_name(f"last-{number}.ckpt") for number in range(1, self.keep))]
        for newer, older in reversed(list(pairwise(names))):
            if newer.exists():
                older.unlink(missing_ok=True)
                try:
                    os.link(newer, older)
                except OSError:  # a file system without hard links
                    newer.replace(older)


RESUMABLE = ("state_dict", "config", "epoch", "global_step", "metrics_bytes")
"""What a checkpoint must have for a run to continue from it."""
USABLE = RESUMABLE[:-1]
"""What it must have for its weights to be used; a trainer other than gradspike's writes no metrics.jsonl."""


def load_checkpoint(path: Path, needed: Sequence[str] = RESUMABLE) -> dict[str, Any]:
    """Read a checkpoint and check all its bytes that matter. Raises UserError if it is missing or damaged."""
    if not path.is_file():
        raise UserError(unknown_path("checkpoint", path))
    try:
        _check_archive(path)
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path}: is not a checkpoint of gradspike. It contains objects other than tensors and plain values, "
            "which may run code and are not loaded."
        ) from error
    # torch has no common error class for truncated, foreign or unreadable files.
    except Exception as error:
        raise_if_exhausted(error)
        if is_out_of_memory(error):
            raise
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(f"{path}: is damaged and cannot be loaded ({reason}).") from error
    missing = set(needed) - set(checkpoint)
    if missing:
        raise UserError(f"{path}: is not a checkpoint of gradspike (it lacks {', '.join(sorted(missing))}).")
    expected = checkpoint.pop(DIGEST, None)  # absent in files of versions before this check
    if expected not in (None, state_hash(dict(_tensors(checkpoint)))):
        raise UserError(f"{path}: is damaged (its tensors differ from the saved ones).")
    return checkpoint


@dataclass(frozen=True)
class SavedState:
    """The state from which a resumed run continues. problems: why newer checkpoints are unusable, a sentence each."""

    path: Path
    content: dict[str, Any]
    problems: tuple[str, ...] = ()


def newest_state(run: RunFolder) -> SavedState | None:
    """The newest state that `run` can continue from; None if it never saved one.

    A state needs an intact checkpoint and all of metrics.jsonl up to it. Raises UserError if there are checkpoints but
    all are unusable.
    """
    problems: list[str] = []
    for path in run.last_states():
        try:
            content = load_checkpoint(path)
            _check_metrics(run.metrics, path, content["metrics_bytes"])
        except UserError as error:
            problems.append(str(error))
        else:
            return SavedState(path, content, tuple(problems))
    if problems:
        if run.best.is_file():
            problems.append(f"{run.best} may still be intact: copy it to {run.last} to continue from there.")
        raise UserError("\n".join(problems))
    return None


def state_hash(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of the names, types, shapes and values of a state dict. Files of the same weights may differ in bytes."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _check_archive(path: Path) -> None:
    """Compare every record with its CRC, which torch does not. Raises an exception if one differs."""
    with zipfile.ZipFile(path) as archive:
        records = archive.infolist()
        if any(record.compress_type != zipfile.ZIP_STORED for record in records):
            raise ValueError("torch saves no compressed records")
        if sum(record.file_size for record in records) > path.stat().st_size:
            raise ValueError("its records claim to be larger than the file")
        bad = archive.testzip()
    if bad is not None:
        raise ValueError(f"wrong checksum of {bad}")


def _check_metrics(metrics: Path, checkpoint: Path, expected: int) -> None:
    size = metrics.stat().st_size if metrics.exists() else 0
    if size < expected:
        raise UserError(
            f"{metrics}: has {counted(size, 'byte')}, but {checkpoint.name} was saved after {expected:,}. Restore it "
            "or start a new run."
        )


def _tensors(value: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every tensor in nested dicts and lists, by its path."""
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _tensors(inner, f"{name}/{key}")
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from _tensors(inner, f"{name}/{number}")
