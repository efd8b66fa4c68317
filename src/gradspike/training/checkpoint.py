"""A checkpoint's file: written in one step, read back as plain dicts and tensors."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from typing_extensions import override

from gradspike.errors import UserError


class AtomicFiles(TorchCheckpointIO):
    """Writes a checkpoint beside its place and renames it; Lightning's own goes by the system's temporary folder."""

    @override
    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        target = Path(path)
        temporary = target.with_name(f".{target.name}.partial")
        try:
            with temporary.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            reason = error.strerror or error
            raise UserError(f"{target}: cannot be saved ({reason}). The previous checkpoint is unchanged.") from error


def load_checkpoint(path: Path, hint_best: Path | None = None) -> dict[str, Any]:
    """Read a checkpoint. Raises UserError if it is missing or damaged."""
    if not path.is_file():
        raise UserError(f"{path}: this checkpoint does not exist.")
    try:
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    # torch has no common class for files that are cut short, of another kind or unreadable.
    except Exception as error:
        hint = ""
        if hint_best and hint_best.is_file():
            hint = f" {hint_best} may still be intact: copy it to {path} to continue from there."
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(f"{path}: is damaged and cannot be loaded ({reason}).{hint}") from error
    missing = {"state_dict", "config", "epoch", "global_step", "metrics_bytes"} - set(checkpoint)
    if missing:
        raise UserError(f"{path}: is not a checkpoint of gradspike (it lacks {', '.join(sorted(missing))}).")
    return checkpoint
