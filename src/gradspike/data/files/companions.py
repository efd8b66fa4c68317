"""Known companions of samples: documents, tables and lists, which people and programs keep beside them.

One rule for all data sets: a file that no reader takes for a sample is left out and counted if it is a known companion.
Any other file among the samples is a bad file, because it may be a sample that cannot be read.
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
    *(".md5", ".sha1", ".sha256", ".sha512", ".sfv", ".url", ".py", ".m", ".sh", ".bat", ".ipynb"),
)
_NAMES = (
    *("readme*", "read me*", "license*", "licence*", "copying*", "copyright*", "notice*", "authors*", "citation*"),
    *("changelog*", "changes*", "version*", "*checksums*", "md5sum*", "sha*sum*", "manifest*"),
)


def is_companion(name: str, sample_endings: Sequence[str]) -> bool:
    """Whether a file is a known companion, in any letter case, and not a sample by its extension."""
    lower = name.rpartition("/")[2].casefold()
    if lower.endswith(tuple(sample_endings)):
        return False
    stem_only = "." not in lower
    return lower.endswith(_ENDINGS) or (stem_only and any(fnmatchcase(lower, pattern) for pattern in _NAMES))


def left_out(files: Files, used: Collection[str], bad: Collection[str], inside: str = "") -> dict[str, int]:
    """How many of `files` are neither used nor bad, by top folder and extension: `test/**/*.JPEG`, `words.txt`.

    used: names as in `files.entries()`. bad: paths as they are shown. inside: the folder of the data set in `files`,
    which is not part of the names counted ("" or "folder/").
    """
    counts: Counter[str] = Counter()
    for entry in files.entries():
        if entry.name not in used and files.shown(entry.name) not in bad:
            name = entry.name.removeprefix(inside)
            top, deeper, _ = name.partition("/")
            counts[f"{top}/**/*{PurePosixPath(name).suffix}" if deeper else name] += 1
    return dict(sorted(counts.items()))
