"""Checks `data_dir`, the folder for all data."""

from __future__ import annotations

from pathlib import Path

from gradspike.errors import UserError
from gradspike.shown import expanded, shell_words


def check_data_dir(path: str | Path) -> Path:
    """Return `path` as an existing folder. Creates the folder, but not its parents. Raises UserError.

    A missing parent usually means a typo or an unmounted disk.
    """
    folder = expanded(path)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"data_dir={folder} is a file, not a folder. Name a folder, or move the file away.")
    if not folder.exists() and not folder.absolute().parent.is_dir():
        raise UserError(
            f"data_dir={folder} was not created, because its parent folder does not exist either. "
            f"Check the spelling, mount the disk, or run: mkdir -p {shell_words([str(folder.absolute())])}"
        )
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(
            f"data_dir={folder} cannot be created ({error.strerror}). Prepared data sets are stored there: "
            f"choose another folder with data_dir=..., or change its permissions."
        ) from error
    return folder
