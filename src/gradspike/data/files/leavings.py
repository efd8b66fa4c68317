"""Files that operating systems, file servers and programs leave in folders: thumbnails, recycle bins, caches.

They are never samples, whatever their extension. They are ignored, counted, and reported once.
"""

from __future__ import annotations

import re
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
    "$extend",
    "~snapshot",
    "msdownld.tmp",
    "dfsrprivate",
    "system volume information",
    "indexervolumeguid",
    # macOS; all its other names start with a dot
    "__macosx",
    "icon\r",
    "icon\uf00d",  # the same over SMB
    "network trash folder",
    "temporary items",
    "thevolumesettingsfolder",
    "desktop db",
    "desktop df",
    # Linux
    "lost+found",
    "lost.dir",
    # NAS: Synology, QNAP
    "@eadir",
    "#recycle",
    "#snapshot",
    "@tmp",
    "@sharebin",
    "@sharesnap",
    "@img_bkp_cache",
    "@recycle",
    "@recently-snapshot",
    "@__thumb",
    "@transcode",
    # programs
    "__pycache__",
    "_vti_cnf",
    "_gsdata_",
    "picasa.ini",
    "zbthumbnail.info",
    "pspbrwse.jbf",
}
_PATTERNS = re.compile(
    r"found\.\d{3}"  # of chkdsk
    r"|.*:?zone\.identifier|.*:(com\.apple\..*|afp_afpinfo|afp_resource|encryptable)"  # streams of NTFS and AFP
    r"|albumart(small|_\{.*\}_(small|large))\.jpg"  # covers of Windows Media Player
    r"|network recycle bin( \d+)?"  # of QNAP
    r"|syno(photo|file|index)_(thumb|media)_.*"  # of @eaDir, moved out of it
    r"|@syno.*|.*@syno(eastream|resource)"
    r"|~\$.*"  # locks of Office
)
_HIDDEN = (".ds_store", ".ipynb_checkpoints", ".thumbnails", ".appledouble", ".git")
"""Hidden names that are reported individually; all others are reported as `.*`."""


def is_leaving(part: str) -> bool:
    """Whether a file or folder with this name is ignored. Ignores case. Names that start with a dot always are."""
    if part.startswith("."):
        return part not in (".", "..")
    lower = part.casefold()
    # In small letters, "recycled" is a class of waste.
    return lower in _NAMES or part == "RECYCLED" or _PATTERNS.fullmatch(lower) is not None


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
    if lower.endswith("zone.identifier"):
        return "*:Zone.Identifier"
    return ".*" if name.startswith(".") and lower not in _HIDDEN else name
