"""Reads the option class of a part (a method, a model, a data set) from the part's file without importing the file.

A part's file imports torch, which takes seconds; its options must be checked in a fraction of one. So only the
statements behind the option class are executed: its definition, and the imports, constants, functions and classes that
it uses. A file that cannot be read this way raises `NotReadable`; import it instead.

The class read here and the class of the imported module are two classes with the same fields. `Registry.build` gives
each part an instance of its own class.
"""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

ATTRIBUTE = "Config"

PART_MODULES: set[str] = set()
"""Modules of registered parts. If another part's file takes an option class from one, it is read, not imported."""


class NotReadable(Exception):
    """The option class cannot be read without importing the file."""


class NoSuchClass(Exception):
    """The file does not define the class; `classes` lists the classes it defines."""

    def __init__(self, classes: list[str]) -> None:
        super().__init__()
        self.classes = classes


def read_config(module: str, name: str) -> Any:
    """The attribute `Config` of the class `module:name`; None if neither the class nor a base class sets it.

    Raises NotReadable, NoSuchClass, and any error of the executed statements.
    """
    source = _source(module)
    source.require(name)
    if module in sys.modules and not source.executed:
        return getattr(getattr(sys.modules[module], name), ATTRIBUTE, None)
    return source.config_of(name)


def _source(module: str) -> PartSource:
    """The parsed file of a module; the same object until the file changes."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError, AttributeError) as error:
        raise NotReadable(str(error)) from error
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        raise NotReadable(f"{module} has no source file")
    status = Path(spec.origin).stat()
    return _parsed(module, spec.parent or "", spec.origin, status.st_mtime_ns, status.st_size)


@cache
def _parsed(module: str, package: str, file: str, modified: int, size: int) -> PartSource:
    return PartSource(module, package, Path(file))


class PartSource:
    """One file: its top-level statements, by the names they bind, and the positions of those executed so far."""

    def __init__(self, module: str, package: str, file: Path) -> None:
        self.executed: set[int] = set()
        self._values: dict[str, Any] = {}
        self._file = str(file)
        self._namespace = ModuleType(module)
        self._namespace.__dict__.update(__file__=self._file, __package__=package)
        tree = ast.parse(file.read_text(encoding="utf-8"), self._file)
        self._statements = [single for statement in tree.body for single in _one_import_each(statement)]
        self._positions: dict[str, list[int]] = {}
        for position, statement in enumerate(self._statements):
            for name in _bound(statement):
                self._positions.setdefault(name, []).append(position)

    def require(self, name: str) -> None:
        """Raise NoSuchClass if nothing in the file can bind the name."""
        if not self._positions.keys() & {name, "*", "__getattr__"}:
            raise NoSuchClass([one.name for one in self._statements if isinstance(one, ast.ClassDef)])

    def config_of(self, name: str) -> Any:
        """`Config` of a class that this file defines or imports; see `read_config`."""
        found = self._statements[self._position(name)]
        if isinstance(found, ast.ImportFrom):
            return read_config(self._imported_module(found), found.names[0].name)
        if not isinstance(found, ast.ClassDef):
            raise NotReadable(f"{name} is not a class statement")
        for statement in found.body:
            if ATTRIBUTE not in _bound(statement):
                continue
            value = statement.value if isinstance(statement, ast.Assign | ast.AnnAssign) else None
            if isinstance(value, ast.Name):
                return self.value_of(value.id)
            if value is not None or not isinstance(statement, ast.AnnAssign):
                raise NotReadable(f"{name}.{ATTRIBUTE} is not a plain name")
        for base in found.bases:
            if not isinstance(base, ast.Name):
                raise NotReadable(f"{name} has a base class that is not a plain name")
            config = self.config_of(base.id) if base.id in self._positions else None
            if config is not None:
                return config
        return None

    def value_of(self, name: str) -> Any:
        """The value of a top-level name, after executing the statements that it depends on."""
        if name in self._values:
            return self._values[name]
        self._position(name)
        needed: set[str] = set()
        wanted: set[int] = set()
        waiting = [name]
        while waiting:
            now = waiting.pop()
            if now not in needed and now in self._positions:
                needed.add(now)
                wanted.add(self._position(now))
                waiting += _used(self._statements[self._position(now)])
        for position, statement in enumerate(self._statements):
            if position not in wanted and _may_change(statement, needed):
                raise NotReadable(f"line {statement.lineno} may change what {name} depends on")
        self._execute(sorted(wanted - self.executed))
        self._values[name] = getattr(self._namespace, name)
        return self._values[name]

    def _position(self, name: str) -> int:
        positions = self._positions.get(name, [])
        if len(positions) != 1:
            raise NotReadable(f"{name} is bound {len(positions)} times")
        return positions[0]

    def _imported_module(self, statement: ast.ImportFrom) -> str:
        relative = "." * statement.level + (statement.module or "")
        return importlib.util.resolve_name(relative, self._namespace.__package__)

    def _execute(self, positions: list[int]) -> None:
        namespace, module = self._namespace.__dict__, self._namespace.__name__
        imported = sys.modules.get(module)
        # pydantic looks up the names in annotations in the module of a class.
        sys.modules[module] = self._namespace
        try:
            for position in positions:
                statement = self._statements[position]
                if isinstance(statement, ast.ImportFrom) and self._imported_module(statement) in PART_MODULES:
                    alias = statement.names[0]
                    value = _source(self._imported_module(statement)).value_of(alias.name)
                    namespace[alias.asname or alias.name] = value
                else:
                    code = ast.Module([*self._future(), statement], [])
                    exec(compile(code, self._file, "exec"), namespace)
                self.executed.add(position)
        finally:
            if imported is None:
                del sys.modules[module]
            else:
                sys.modules[module] = imported

    def _future(self) -> list[ast.stmt]:
        """The file's `from __future__` imports, which change how a statement is compiled."""
        return [one for one in self._statements if isinstance(one, ast.ImportFrom) and one.module == "__future__"]


def _one_import_each(statement: ast.stmt) -> Iterator[ast.stmt]:
    """Split an import of several names into one statement per name, so only the needed ones are executed."""
    if isinstance(statement, ast.Import):
        for alias in statement.names:
            yield ast.copy_location(ast.Import([alias]), statement)
    elif isinstance(statement, ast.ImportFrom):
        for alias in statement.names:
            yield ast.copy_location(ast.ImportFrom(statement.module, [alias], statement.level), statement)
    else:
        yield statement


def _bound(statement: ast.stmt) -> set[str]:
    """Names that a statement may bind; `*` for a star import."""
    if isinstance(statement, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return {statement.name}
    bound, of_comprehensions = set(), set()
    for node in ast.walk(statement):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            bound.add(node.id)
        elif isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            bound.add(node.name)
        elif isinstance(node, ast.alias):
            bound.add(node.asname or node.name.partition(".")[0])
        elif isinstance(node, ast.comprehension):
            of_comprehensions |= {name.id for name in ast.walk(node.target) if isinstance(name, ast.Name)}
    return bound - of_comprehensions


def _used(statement: ast.stmt) -> list[str]:
    """Names that a statement may need, including those in function bodies and annotations."""
    return [node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)]


def _may_change(statement: ast.stmt, names: set[str]) -> bool:
    """Whether a statement could change the value of one of the names in place, like `CHOICES.append("x")`."""
    if isinstance(statement, ast.Import | ast.ImportFrom | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return False
    if isinstance(statement, ast.Assign | ast.AnnAssign):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        if all(isinstance(target, ast.Name) for target in targets):
            return False
    return not names.isdisjoint(_used(statement))
