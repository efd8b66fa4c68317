"""The one parser of all commands but `train`, whose words Hydra reads: `key=value`, flags and plain words.

A command states what it takes in a `Command`; what it does not take is an error before any work starts.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from gradspike.config.schema import ExperimentConfig
from gradspike.config.validate import explain
from gradspike.config.wandb_options import ENVIRONMENT
from gradspike.errors import ConfigError, UserError, unknown
from gradspike.registry import Strict
from gradspike.runs.files import check_writable

HELP = ("-h", "--help")
CONFIG_DIR = "--config-dir"
CONFIG_DIR_USAGE = "  --config-dir DIR   a folder of your own with further options of the groups\n"


@dataclass(frozen=True)
class Typed:
    """A command line, taken apart."""

    options: Any
    """The command's own keys, validated by its schema."""
    overrides: list[str] = field(default_factory=list)
    """`key=value` of the keys of `gradspike train`."""
    words: list[str] = field(default_factory=list)
    """What is neither a key nor a flag."""
    flags: dict[str, list[str]] = field(default_factory=dict)
    """The values of each flag that was given; a switch has none."""
    config_dir: str | None = None
    """The user's own folder of options."""

    def last(self, flag: str) -> str | None:
        """The value of a flag, or None where it was not given."""
        return next(reversed(self.flags.get(flag, [])), None)


@dataclass(frozen=True)
class Command:
    """What a command takes. `usage` is the text of its --help."""

    name: str
    usage: str
    keys: type[Strict] = Strict
    switches: tuple[str, ...] = ()
    valued: tuple[str, ...] = ()
    """Flags with a value, which may be given several times."""
    trains: bool = False
    """Whether it takes the keys of `gradspike train` and --config-dir as well."""
    words: bool = False
    """Whether it takes plain words, such as folders."""

    def parse(self, words: Iterable[str]) -> Typed:
        """Take a command line apart. Raises ConfigError; --help prints the usage and exits."""
        words = list(words)
        if any(word in HELP for word in words):
            print(self.usage, end="")
            raise SystemExit(0)
        words, config_dir = take_config_dir(words)
        if config_dir is not None and not self.trains:
            raise self.error(f"{self.name} composes no configuration and takes no {CONFIG_DIR}; leave it out.")
        rest, flags = self._flags(words)
        values: dict[str, str] = {}
        overrides: list[str] = []
        plain: list[str] = []
        for word in rest:
            key, equals, value = word.partition("=")
            if not equals:
                plain.append(word)
            elif key in self._known():
                values[key] = value
            elif self.trains:
                self._check_key(key)
                overrides.append(word)
            elif self.words:
                plain.append(word)
            else:
                raise self.error(unknown("key", key, self._known()))
        if plain and not self.words:
            raise self.error(f"'{plain[0]}' is not an argument. Write key=value.")
        return Typed(self._validated(values), overrides, plain, flags, config_dir)

    def error(self, message: str) -> ConfigError:
        """The error to raise for a mistake in the command line."""
        return ConfigError(f"{message}\nSee: gradspike {self.name} --help")

    def _flags(self, words: list[str]) -> tuple[list[str], dict[str, list[str]]]:
        rest: list[str] = []
        flags: dict[str, list[str]] = {}
        remaining = iter(words)
        for word in remaining:
            flag, equals, value = word.partition("=")
            if not word.startswith("-"):
                rest.append(word)
            elif flag in self.valued:
                value = value if equals else next(remaining, "")
                if not value or (not equals and value.startswith("--")):
                    raise self.error(f"{flag} needs a value.")
                flags.setdefault(flag, []).append(value)
            elif flag in self.switches:
                if equals:
                    raise self.error(f"{flag} takes no value.")
                flags.setdefault(flag, [])
            else:
                own = [CONFIG_DIR] if self.trains else []
                raise self.error(unknown("flag", flag, [*self.valued, *self.switches, *own, "--help"]))
        return rest, flags

    def _check_key(self, key: str) -> None:
        """Report a mistyped key of the command's own as such, before it is taken for one of the configuration."""
        known = {*self._known(), *ExperimentConfig.model_fields}
        if "." not in key and key.lstrip("+~") not in known:
            raise self.error(unknown("key", key, known))

    def _known(self) -> list[str]:
        """The command's own keys as they are typed; an alias may have dots."""
        return [field.alias or name for name, field in self.keys.model_fields.items()]

    def _validated(self, values: Mapping[str, str]) -> Any:
        try:
            return self.keys.model_validate(values)
        except ValidationError as error:
            problems = [_problem(detail, values) for detail in error.errors(include_url=False)]
            raise self.error("\n".join(problems)) from error


def take_config_dir(words: Iterable[str]) -> tuple[list[str], str | None]:
    """The words without --config-dir (-cd), and its folder. Raises ConfigError where the folder is missing."""
    rest: list[str] = []
    folder = None
    remaining = iter(words)
    for word in remaining:
        flag, equals, value = word.partition("=")
        if flag not in (CONFIG_DIR, "-cd"):
            rest.append(word)
            continue
        folder = os.path.expanduser(value if equals else next(remaining, ""))
        if not folder:
            raise ConfigError(f"{CONFIG_DIR}: which folder?")
    return rest, folder


def _problem(detail: Any, values: Mapping[str, str]) -> str:
    """A pydantic mistake after its `key=value`, or after the bare key where no value was given."""
    if detail["type"] == ENVIRONMENT:
        return str(detail["msg"])
    key = str(detail["loc"][0])
    return f"{key}={values[key]}: {explain(detail)}" if key in values else f"{key}: {explain(detail)}"


def checked_file(name: str, text: str, endings: Mapping[str, str] | None = None) -> Path:
    """The file that an argument names, found writable before anything is computed.

    `name` is the argument as typed up to the path (`out=`, `--out `); `endings` are the endings allowed and what each
    one stands for. Raises ConfigError for what can never be right, UserError for a place that cannot be written to.
    """
    path = Path(text).expanduser()
    if not text or path.is_dir():
        raise ConfigError(f"{name}{text}: must be a file.")
    if endings is not None and path.suffix.lower() not in endings:
        allowed = ", ".join(f"{ending} ({what})" for ending, what in endings.items())
        raise ConfigError(f"{name}{text}: the file's ending must be one of {allowed}.")
    folder = path.absolute().parent
    if not folder.is_dir():
        raise UserError(f"{name}{text}: there is no folder {path.parent}.")
    check_writable(str(folder))
    return path
