"""The version of the code that computes a run, independent of git. Imports nothing heavy."""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parents[1]
APART = ("cli", "terminal", "tools", "statistics.py")  # they start or read runs but do not affect results
DIGITS = 12


@cache
def source_digest() -> str:
    """A digest of the package's code that affects results. Runs with equal digests ran the same code, committed or not.

    Comments, docstrings, layout and the wording of errors do not count. Computed once per process, because edits do not
    change modules that are already imported.
    """
    digest = hashlib.sha256()
    for file in sorted(PACKAGE.rglob("*.py")):
        name = file.relative_to(PACKAGE)
        if name.parts[0] not in APART:
            digest.update(f"{name.as_posix()}\0{meaning(file.read_text(encoding='utf-8'))}\0".encode())
    return digest.hexdigest()[:DIGITS]


def meaning(source: str) -> str:
    """A file's syntax tree as one line of text, the same in every version of Python that can parse it."""
    return _canonical(ast.parse(source))


def _canonical(node: Any, wording: bool = False) -> str:
    """A syntax tree as text. With `wording`, without strings, which are the text of an error."""
    kind = type(node)  # of hundreds of thousands of nodes; generators would take twice as long
    if kind is list:
        return f"[{','.join(filter(None, [_canonical(one, wording) for one in node]))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    if wording and (
        isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))
    ):
        return "text"
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return ""  # the docstring of a module, class, function or attribute
    wording = wording or kind is ast.Raise
    fields = []
    for name in kind._fields:
        value = getattr(node, name, None)
        if value is not None and value != [] and name != "kind":
            fields.append(f"{name}={_canonical(value, wording)}")
    return f"{kind.__name__}({','.join(fields)})"


def module_digests(modules: Iterable[str]) -> dict[str, str]:
    """Digests of imported modules outside the package (the user's methods, models and data sets), by name."""
    files = {name: getattr(sys.modules.get(name), "__file__", None) for name in modules}
    return {
        name: hashlib.sha256(Path(file).read_bytes()).hexdigest()[:DIGITS]
        for name, file in sorted(files.items())
        if file is not None
    }
