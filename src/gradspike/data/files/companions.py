"""Known companions of samples: documents, tables and lists stored next to them.

One rule for all data sets: a known companion that no reader accepts as a sample is left out and counted. Any other file
among the samples that no reader accepts is a bad file, because it may be an unreadable sample.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from gradspike.data.files.files import Files

_ENDINGS = (
    *(".txt", ".md", ".rst", ".rtf", ".pdf", ".doc", ".docx", ".odt", ".html", ".htm", ".bib", ".cff", ".log"),
    *(".csv", ".tsv", ".xls", ".xlsx", ".ods", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".toml", ".ini", ".cfg"),
    *(".md5", ".sha1", ".sha256", ".sha512", ".sfv", ".url", ".xmp", ".py", ".m", ".sh", ".bat", ".ipynb"),
)
_NAMES = (
    *("readme*", "read me*", "license*", "licence*", "copying*", "copyright*", "notice*", "authors*", "citation*"),
    *("changelog*", "changes*", "version*", "*checksums*", "md5sum*", "sha*sum*", "manifest*"),
)


def is_companion(name: str, sample_endings: Sequence[str]) -> bool:
    """Whether a file is a known companion and does not have a sample's extension. Ignores case."""
    lower = name.rpartition("/")[2].casefold()
    if lower.endswith(tuple(sample_endings)):
        return False
    stem_only = "." not in lower
    return lower.endswith(_ENDINGS) or (stem_only and any(fnmatchcase(lower, pattern) for pattern in _NAMES))


def left_out(files: Files, used: Collection[str], bad: Collection[str], inside: str = "") -> dict[str, int]:
    """Count `files` that are neither used nor bad, by top folder and extension: `test/**/*.JPEG`, `words.txt`.

    used: names as in `files.entries()`. bad: paths as shown to the user. inside: the folder of the data set in `files`
    ("" or "folder/"), which is removed from the counted names.
    """
    counts: Counter[str] = Counter()
    for entry in files.entries():
        if entry.name not in used and files.shown(entry.name) not in bad:
            name = entry.name.removeprefix(inside)
            top, deeper, _ = name.partition("/")
            counts[f"{top}/**/*{PurePosixPath(name).suffix}" if deeper else name] += 1
    return dict(sorted(counts.items()))
