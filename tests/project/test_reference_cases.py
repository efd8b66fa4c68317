"""Every case of the reference arrays is compared by a test."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from helpers.plugin_arrays import REFERENCE, all_cases, cases

TESTS = Path(__file__).parents[1]


def literal(node: ast.expr, assigned: dict[str, ast.expr], loops: dict[str, Any]) -> Any:
    """What an expression stands for: a literal, a name assigned to one, or the variable of a loop."""
    if isinstance(node, ast.Name):
        return loops[node.id] if node.id in loops else ast.literal_eval(assigned[node.id])
    return ast.literal_eval(node)


def calls(node: ast.AST, assigned: dict[str, ast.expr], loops: dict[str, Any]) -> Iterator[tuple[str, set[str]]]:
    """The file and the names of the cases that each call of `cases` gives."""
    if "cases" not in {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}:
        return
    if isinstance(node, ast.ListComp) and isinstance(node.generators[0].target, ast.Name):
        first = node.generators[0]
        for value in literal(first.iter, assigned, loops):
            for part in [node.elt, *(one.iter for one in node.generators[1:])]:
                yield from calls(part, assigned, {**loops, first.target.id: value})
        return
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "cases":
        file, *has = (literal(argument, assigned, loops) for argument in node.args)
        options = {one.arg: literal(one.value, assigned, loops) for one in node.keywords if one.arg}
        yield file, set(cases(file, *has, **options))
        return
    for child in ast.iter_child_nodes(node):
        yield from calls(child, assigned, loops)


def compared() -> dict[str, set[str]]:
    """The cases that tests are parametrised with, by file: in decorators, or in lists at the top of a module."""
    found: dict[str, set[str]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        text = path.read_text(encoding="utf-8")
        if path == Path(__file__) or "cases(" not in text:
            continue
        body = ast.parse(text).body
        assigned: dict[str, ast.expr] = {}
        for node in body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                assigned[node.targets[0].id] = node.value
        sources = list(assigned.values())
        sources += [one for node in body if isinstance(node, ast.FunctionDef) for one in node.decorator_list]
        for source in sources:
            for file, names in calls(source, assigned, {}):
                found.setdefault(file, set()).update(names)
    return found


def test_every_case_is_compared() -> None:
    done = compared()
    files = sorted(path.stem for path in REFERENCE.glob("*.npz"))
    assert len(files) >= 20
    missing = {f"{file}/{name}" for file in files for name in all_cases(file) - done.get(file, set())}
    assert missing == set()
