"""Files that operating systems, file servers and programs leave in folders: thumbnails, recycle bins, caches.

They are never samples, whatever their extension. They are ignored, counted, and reported once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

_NAMES = {
    # Windows
    "thumbs.db",
    "ehthumbs.db",
    "ehthumbs_vista.db",
    "thumbs.db:encryptable",
    "desktop.ini",
    "$recycle.bin",
    "recycler",
    "system volume information",
    "indexervolumeguid",
    # macOS; all its other names start with a dot
    "__macosx",
    "icon\r",
    "network trash folder",
    "temporary items",
    # Linux
    "lost+found",
    # NAS: Synology, QNAP
    "@eadir",
    "#recycle",
    "#snapshot",
    "@tmp",
    "@sharebin",
    "@recycle",
    "@recently-snapshot",
    "@__thumb",
    # programs
    "__pycache__",
    "picasa.ini",
    "zbthumbnail.info",
}
_HIDDEN = (".ds_store", ".ipynb_checkpoints", ".thumbnails", ".appledouble", ".git")
"""Hidden names that are reported individually; all others are reported as `.*`."""


def is_leaving(part: str) -> bool:
    """Whether a file or folder with this name is ignored. Ignores case. Names that start with a dot always are."""
    return (part.startswith(".") and part not in (".", "..")) or part.casefold() in _NAMES


def first_leaving(parts: Sequence[str]) -> int | None:
    """Index of the first ignored part of a path; its contents are ignored too. None if there is none."""
    return next((place for place, part in enumerate(parts) if is_leaving(part)), None)


class Leavings:
    """Counts ignored files and folders by name, without the contents of ignored folders."""

    def __init__(self) -> None:
        self._places: set[str] = set()
        self._counts: Counter[str] = Counter()

    def add(self, path: str) -> None:
        """Count the ignored file or folder at `path`."""
        if path not in self._places:
            self._places.add(path)
            self._counts[_kind(path.rpartition("/")[2])] += 1

    def counts(self) -> dict[str, int]:
        """Number of ignored files and folders by name."""
        return dict(sorted(self._counts.items()))


def _kind(name: str) -> str:
    lower = name.casefold()
    if lower.startswith("._"):
        return "._*"
    if lower.startswith(".trash"):
        return ".Trash*"
    return ".*" if name.startswith(".") and lower not in _HIDDEN else name
