"""The folder that holds data: what is accepted and what is said when it is not."""

from __future__ import annotations

from pathlib import Path

from gradspike.errors import UserError


def check_data_dir(path: str | Path) -> Path:
    """Return `path` as an existing folder that can be written to; create it, but not its parents.

    A missing parent is more often a typing error or a disk that is not mounted than a wish for a new tree. Raises
    UserError.
    """
    folder = Path(path).expanduser()
    if folder.exists() and not folder.is_dir():
        raise UserError(f"data_dir={folder} is a file, not a folder. Name a folder, or move the file away.")
    if not folder.exists() and not folder.absolute().parent.is_dir():
        raise UserError(
            f"data_dir={folder} does not exist, and neither does the folder around it, so it was not created. "
            f"Check the spelling, mount the disk, or run: mkdir -p '{folder.absolute()}'"
        )
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(
            f"data_dir={folder} cannot be made ({error.strerror}). Prepared data is kept there: "
            f"choose another folder with data_dir=..., or change its permissions."
        ) from error
    return folder
