"""Which code a run was computed with, whatever git knows of it. Imports nothing heavy."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
APART = ("cli", "terminal", "tools")  # they start runs or look at them, and shape none
DIGITS = 12


@cache
def source_digest() -> str:
    """Changes with any Python file of the package that can shape a result: two runs with the same digest were computed
    with the same code, committed or not.

    Computed once a process: what it has imported stays the same, whatever is edited while it runs.
    """
    digest = hashlib.sha256()
    for file in sorted(PACKAGE.rglob("*.py")):
        name = file.relative_to(PACKAGE)
        if name.parts[0] not in APART:
            digest.update(name.as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:DIGITS]


def module_digests(modules: Iterable[str]) -> dict[str, str]:
    """The same for imported modules outside the package, by their names: methods, models and data sets of one's own."""
    files = {name: getattr(sys.modules.get(name), "__file__", None) for name in modules}
    return {
        name: hashlib.sha256(Path(file).read_bytes()).hexdigest()[:DIGITS]
        for name, file in sorted(files.items())
        if file is not None
    }
