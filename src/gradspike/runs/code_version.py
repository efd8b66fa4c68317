"""Which code a run was computed with, whatever git knows of it. Imports nothing heavy."""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parents[1]
APART = ("cli", "terminal", "tools")  # they start runs or look at them, and shape none
DIGITS = 12


@cache
def source_digest() -> str:
    """Changes with any code of the package that computes: runs with one digest ran the same code, committed or not.

    Comments, docstrings, layout and the wording of errors do not count. Computed once a process: what it has imported
    stays the same, whatever is edited while it runs.
    """
    digest = hashlib.sha256()
    for file in sorted(PACKAGE.rglob("*.py")):
        name = file.relative_to(PACKAGE)
        if name.parts[0] not in APART:
            digest.update(f"{name.as_posix()}\0{meaning(file.read_text(encoding='utf-8'))}\0".encode())
    return digest.hexdigest()[:DIGITS]


def meaning(source: str) -> str:
    """What a file computes as one line of text, the same in every version of Python that can read it."""
    return _canonical(ast.parse(source))


def _canonical(node: Any, wording: bool = False) -> str:
    """A syntax tree as text. With `wording`, strings are left out: they are what an error says."""
    if isinstance(node, list):
        return f"[{','.join(filter(None, (_canonical(one, wording) for one in node)))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    if wording and (
        isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))
    ):
        return "text"
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return ""  # a docstring, of a module, class, function or attribute
    wording = wording or isinstance(node, ast.Raise)
    fields = [(name, value) for name, value in ast.iter_fields(node) if value not in (None, []) and name != "kind"]
    return f"{type(node).__name__}({','.join(f'{name}={_canonical(value, wording)}' for name, value in fields)})"


def module_digests(modules: Iterable[str]) -> dict[str, str]:
    """The same for imported modules outside the package, by their names: methods, models and data sets of one's own."""
    files = {name: getattr(sys.modules.get(name), "__file__", None) for name in modules}
    return {
        name: hashlib.sha256(Path(file).read_bytes()).hexdigest()[:DIGITS]
        for name, file in sorted(files.items())
        if file is not None
    }
