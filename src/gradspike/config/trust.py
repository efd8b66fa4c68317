"""Whether code that a run's record names may be imported.

A record may name any module (`method.name=module:Class`), and reading its options executes code. So names from a record
are used only if this process got them from the user, if this account has trained with the same file before, or if the
user says so. Imports nothing heavy.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from gradspike.errors import ConfigError
from gradspike.json_text import readable_lines, to_json
from gradspike.registry import Registry
from gradspike.shown import shown
from gradspike.variables import variable

TRUST = "--trust"
VARIABLE = "GRADSPIKE_TRUST"

_typed: set[str] = set()
_all = False


def outside(raw: Mapping[str, Any]) -> dict[str, str]:
    """The parts of a configuration that are not gradspike's: import paths by their keys."""
    found = {}
    for section, options in raw.items():
        if isinstance(options, Mapping) and ("name" in options or "library" in options):
            name = Registry.part({"name": "", **options})
            if ":" in name:
                found[f"{section}.{'library' if options.get('library') else 'name'}"] = name
            surrogate = options.get("surrogate")
            if isinstance(surrogate, str) and ":" in surrogate:
                found[f"{section}.surrogate"] = surrogate
    return found


def trust(names: Iterable[str]) -> None:
    """Allow these names in the records that this process reads."""
    _typed.update(names)


def trust_all() -> None:
    """Allow every name."""
    global _all
    _all = True


def trusted(name: str) -> bool:
    """Whether a name from a record may be imported. One that no file here has cannot execute anything."""
    if _all or name in _typed or variable(VARIABLE) == "1":
        return True
    place = _place(name)
    return place is None or (name, place) in _remembered()


def remember(raw: Mapping[str, Any]) -> None:
    """Note that this account trains with these parts, so that it can evaluate and resume its own runs."""
    places = {name: _place(name) for name in outside(raw).values()}
    known = _remembered() if places else set()
    new = [one for one in places.items() if one[1] is not None and one not in known]
    with suppress(OSError, RuntimeError):  # without a home folder, reading the run asks again
        if new:
            file = _file()
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("a", encoding="utf-8") as lines:
                lines.writelines(f"{to_json({'name': name, 'file': place})}\n" for name, place in new)


def require_trusted(raw: Mapping[str, Any], record: Path) -> None:
    """Raise ConfigError that lists the parts of a record that may not be imported."""
    foreign = [f"  {key}={name}" for key, name in outside(raw).items() if not trusted(name)]
    if foreign:
        raise ConfigError(
            f"{shown(record)}: names code outside gradspike that your account has not trained with on this machine. "
            "Reading the run would execute it:\n" + "\n".join(foreign) + f"\nIf you trust this code, add {TRUST} to "
            f"evaluate or landscape, or trust=True to gradspike.load; for other commands, set the "
            f"environment variable {VARIABLE}=1."
        )


def _place(name: str) -> str | None:
    """Where the file or package is that an import would execute first; None if there is none. Executes nothing."""
    try:
        spec = importlib.util.find_spec(name.partition(":")[0].partition(".")[0])
    except (ImportError, ValueError):  # no name, or a module that was not imported from a file
        return None
    if spec is None or (spec.origin is None and not spec.submodule_search_locations):
        return None
    return str(Path(spec.origin or next(iter(spec.submodule_search_locations or ()))).resolve())


def _file() -> Path:
    """The list of the account's parts. Raises RuntimeError without a home folder."""
    home = variable("XDG_STATE_HOME")
    return (Path(home) if home else Path.home() / ".local" / "state") / "gradspike" / "parts.jsonl"


def _remembered() -> set[tuple[Any, Any]]:
    with suppress(OSError, RuntimeError):
        return {(line.get("name"), line.get("file")) for line in readable_lines(_file())}
    return set()
