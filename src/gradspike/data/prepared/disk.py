"""Free space on a disk: looked at before a long preparation starts, and said when it was not enough."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

from gradspike.errors import UserError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def is_full(error: OSError) -> bool:
    """Whether an error says that no more can be written."""
    # numpy's own message of a write that came out short; the system's reason is lost in it.
    return error.errno in _FULL or (error.errno is None and "requested and" in str(error))


def check_free_space(folder: Path, needed: int) -> None:
    """Raise UserError unless `needed` bytes are free where `folder` lies."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"{folder.parent} has too little space: about {size_text(needed)} are needed, {size_text(free)} are free. "
            "Free some, or choose another folder with data_dir=..."
        )


def free_space(folder: Path) -> str:
    """How much is free where `folder` lies, as people say it."""
    return size_text(shutil.disk_usage(folder).free)


def size_text(count: float) -> str:
    """A number of bytes as people say it, `184 MB`."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
