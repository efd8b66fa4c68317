"""`slurm.<name>=<text>`: the options of submitit, converted to the types that submitit declares."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterable, Sequence
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import yaml

from gradspike.cli.sbatch import EXCLUSIVE
from gradspike.errors import ConfigError, UserError, unknown

MAX_NUM_TIMEOUT = "max_num_timeout"
SWITCHES = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
AT_LEAST_ONE = ("nodes", "cpus_per_task", "tasks_per_node", "ntasks_per_node", "timeout_min", "array_parallelism")
TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<parts>\d+(?::\d+){0,2})")


def submitit_options(typed: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """The options with the names of submitit's AutoExecutor. Raises ConfigError for an unknown name or a wrong value.

    List options may be repeated; of other options the last one counts.
    """
    kinds, generic = _kinds(), _generic()
    found: dict[str, Any] = {}
    for name, text in typed:
        option, _, entry = name.partition(".")
        if option not in kinds:
            raise ConfigError(unknown("option", f"slurm.{name}", [f"slurm.{one}" for one in kinds]))
        if entry and dict not in kinds[option]:
            raise ConfigError(f"slurm.{name}: slurm.{option} has no entries; write slurm.{option}=...")
        try:
            value = _read(option, kinds[option], entry, text)
        except ValueError as error:
            raise ConfigError(f"slurm.{name}={text}: {error}") from error
        key = option if option in generic else f"slurm_{option}"
        if value is False and kinds[option] != {bool}:
            found.pop(key, None)  # not set; submitit would write --exclusive=False
        elif isinstance(value, list):
            found[key] = [*found.get(key, []), *value]
        elif isinstance(value, dict):
            found[key] = {**found.get(key, {}), **value}
        else:
            found[key] = value
    return found


def import_submitit() -> Any:
    """Import submitit. Raises UserError if it is not installed."""
    try:
        import submitit
    except ModuleNotFoundError as error:
        raise UserError("executor=slurm needs the package submitit: pip install 'gradspike[slurm]'") from error
    return submitit


def _generic() -> dict[str, type]:
    """The options for any kind of cluster, and their types."""
    return dict(import_submitit().AutoExecutor._typed_parameters())


def _kinds() -> dict[str, set[Any]]:
    """All options, and the allowed types of each."""
    declared = get_type_hints(import_submitit().slurm.slurm._make_sbatch_string)
    special = {name: _alternatives(declared.get(name, str)) for name in declared.keys() & _special()}
    return {**special, **{name: {kind} for name, kind in _generic().items()}, MAX_NUM_TIMEOUT: {int}}


def _special() -> set[str]:
    return set(import_submitit().SlurmExecutor._valid_parameters())


def _alternatives(annotation: Any) -> set[Any]:
    """The types that an annotation allows, without None and element types."""
    if get_origin(annotation) in (Union, UnionType):
        return {kind for one in get_args(annotation) if one is not type(None) for kind in _alternatives(one)}
    return {get_origin(annotation) or annotation}


def _read(option: str, kinds: set[Any], entry: str, text: str) -> Any:
    """The value of an option, or of one entry of it. Raises ValueError."""
    if text in ("", "null"):
        raise ValueError("must not be empty; leave the option out")
    if dict in kinds:
        return {entry: _entry(entry, text)} if entry else _mapping(text)
    if kinds & {list, tuple, Iterable}:
        # Arguments are words of one command; anything else is a list of lines of the job's script.
        return _listed(text) or (shlex.split(text) if option.endswith("_args") else [text])
    if "\n" in text:
        raise ValueError("must be one line")
    if option == "time":
        return _minutes(text)
    if bool in kinds:
        return _switch(text, or_text=str in kinds)
    if int in kinds:
        return _whole(text, least=int(option in AT_LEAST_ONE))
    return _real(text) if float in kinds else text


def _minutes(text: str) -> int:
    """Minutes from a time in a format of sbatch: minutes, MM:SS, HH:MM:SS, D-HH, D-HH:MM or D-HH:MM:SS."""
    found = TIME.fullmatch(text)
    if found is None:
        raise ValueError("must be a time such as 90 (minutes), 01:30:00 or 1-12:00:00")
    parts = [int(part) for part in found["parts"].split(":")]
    if found["days"] is not None:
        days, (hours, minutes, seconds) = int(found["days"]), (*parts, 0, 0)[:3]
    else:
        days, (hours, minutes, seconds) = 0, {1: (0, *parts, 0), 2: (0, *parts), 3: tuple(parts)}[len(parts)]
    whole = (days * 24 + hours) * 60 + minutes + math.ceil(seconds / 60)
    if whole < 1:
        raise ValueError("must be a minute or more")
    return whole


def _whole(text: str, least: int) -> int:
    if not re.fullmatch(r"\d+", text, re.ASCII):
        raise ValueError("must be a whole number")
    if int(text) < least:
        raise ValueError(f"must be at least {least}")
    return int(text)


def _real(text: str) -> float:
    if not re.fullmatch(r"\d+(\.\d*)?", text, re.ASCII):
        raise ValueError("must be a number")
    return float(text)


def _switch(text: str, or_text: bool) -> bool | str:
    if text.lower() in SWITCHES:
        return SWITCHES[text.lower()]
    if or_text and text in EXCLUSIVE:
        return text
    raise ValueError(f"must be one of true, false, {', '.join(EXCLUSIVE)}" if or_text else "must be true or false")


def _listed(text: str) -> list[str] | None:
    """The elements of `[a, b]`, each as its text; None for anything else. `[ -f x ]` and `[[ -f x ]]` are commands."""
    if not re.match(r"\[(?!\[?\s)", text):
        return None
    elements = [_plain(one) for one in _flow(text, list)]
    if not elements:
        raise ValueError("must not be empty; leave the option out")
    return elements


def _mapping(text: str) -> dict[str, Any]:
    """The entries of `{key: value}`."""
    return {_plain(key): _entry(key, _plain(value)) for key, value in _flow(text, dict).items()}


def _entry(key: str, text: str) -> bool | str:
    """The value of an sbatch option that submitit does not know: its text, or True for an option without a value."""
    if not re.fullmatch(r"[\w-]+", key, re.ASCII):
        raise ValueError(f"'{key}' is not the name of an option of sbatch")
    if text == "false":
        raise ValueError(f"{key} is either true or left out")
    return text == "true" or text


def _flow(text: str, kind: type) -> Any:
    """A list or a mapping in YAML's notation; all scalars stay text (007 is 007)."""
    try:
        found = yaml.load(text, Loader=yaml.BaseLoader)
    except yaml.YAMLError as error:
        raise ValueError("cannot be read; put quotes around each element") from error
    if not isinstance(found, kind):
        raise ValueError(f"must be {'[a, b]' if kind is list else '{key: value}'}")
    return found


def _plain(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("elements must be text; put quotes around each")
    return value
