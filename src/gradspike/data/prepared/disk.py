"""Free disk space: checked before a long preparation, and reported when the disk is full."""

from __future__ import annotations

import shutil
from pathlib import Path

from gradspike.errors import UserError
from gradspike.exhausted import no_inodes


def check_free_space(folder: Path, needed: int) -> None:
    """Raise UserError unless `needed` bytes are free on the disk of `folder`."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"{folder.parent} has too little space: about {size_text(needed)} needed, {size_text(free)} free. "
            "Free some space, or choose another folder with data_dir=..."
        )


def free_space(folder: Path) -> str:
    """The free space on the disk of `folder` as text: `184 MB free`."""
    free = f"{size_text(shutil.disk_usage(folder).free)} free"
    return f"{free}, but the file system can hold no more files" if no_inodes(folder) else free


def size_text(count: float) -> str:
    """A number of bytes as text: `184 MB`."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
