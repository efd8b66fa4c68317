"""The parser of all commands except `train`, which Hydra parses: `key=value`, flags and plain words.

A `Command` declares what a command accepts. Everything else is an error before any work starts.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from gradspike.cli.columns import columns, fitted
from gradspike.config.schema import ExperimentConfig
from gradspike.config.validate import explain
from gradspike.config.wandb_options import ENVIRONMENT
from gradspike.errors import ConfigError, unknown, unknown_path
from gradspike.registry import Strict
from gradspike.runs.files import check_writable
from gradspike.shown import expanded

HELP = ("-h", "--help")
CONFIG_DIR = "--config-dir"
CONFIG_DIR_USAGE = "  --config-dir DIR   your own folder with further options of the groups\n"


@dataclass(frozen=True)
class Typed:
    """A parsed command line."""

    options: Any
    """The command's own keys, validated by its schema."""
    overrides: list[str] = field(default_factory=list)
    """`key=value` for keys of `gradspike train`."""
    words: list[str] = field(default_factory=list)
    """Words that are neither keys nor flags."""
    flags: dict[str, list[str]] = field(default_factory=dict)
    """The values of each typed flag; a switch has none."""
    config_dir: str | None = None
    """The user's own folder of options."""

    def last(self, flag: str) -> str | None:
        """The last value of a flag, or None if it was not typed."""
        return next(reversed(self.flags.get(flag, [])), None)


@dataclass(frozen=True)
class Command:
    """What a command accepts. `usage` is the text of its --help."""

    name: str
    usage: str
    keys: type[Strict] = Strict
    switches: tuple[str, ...] = ()
    valued: tuple[str, ...] = ()
    """Flags with a value, which may be repeated."""
    trains: bool = False
    """Whether it also accepts the keys of `gradspike train` and --config-dir."""
    words: bool = False
    """Whether it accepts plain words, such as folders."""

    def parse(self, words: Iterable[str]) -> Typed:
        """Parse a command line. Raises ConfigError; --help prints the usage and exits."""
        words = list(words)
        if any(word in HELP for word in words):
            print(fitted(self.usage, columns()), end="")
            raise SystemExit(0)
        words, config_dir = take_config_dir(words)
        if config_dir is not None and not self.trains:
            raise self.error(f"{self.name} does not compose a configuration: leave out {CONFIG_DIR}.")
        rest, flags = self._flags(words)
        values: dict[str, str] = {}
        overrides: list[str] = []
        plain: list[str] = []
        for word in rest:
            key, equals, value = word.partition("=")
            if not equals:
                plain.append(word)
            elif key in self._known():
                if not value:  # as from an unset variable of the shell; it would pass for a default or for `.`
                    raise self.error(f"{word}: must not be empty.")
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
        """The error for a mistake in the command line."""
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
    """The words without --config-dir (-cd), and its folder. Raises ConfigError if it has no value."""
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
            raise ConfigError(f"{CONFIG_DIR} needs a folder.")
    return rest, folder


def _problem(detail: Any, values: Mapping[str, str]) -> str:
    """A pydantic error after its `key=value`, or only its key if it has no value."""
    if detail["type"] == ENVIRONMENT:
        return str(detail["msg"])
    key = str(detail["loc"][0])
    return f"{key}={values[key]}: {explain(detail)}" if key in values else f"{key}: {explain(detail)}"


def checked_file(name: str, text: str, endings: Mapping[str, str] | None = None) -> Path:
    """The file that an argument names. Checks that it can be written before anything is computed.

    `name` is the argument as typed before the path (`out=`, `--out `); `endings` maps the allowed endings to what they
    mean. Raises ConfigError for a wrong name or an unknown folder, UserError for a folder that cannot be written to.
    """
    path = expanded(text)
    if not text or text.endswith("/") or path.is_dir():
        raise ConfigError(f"{name}{text}: must be a file.")
    if endings is not None and path.suffix.lower() not in endings:
        allowed = ", ".join(f"{ending} ({what})" for ending, what in endings.items())
        raise ConfigError(f"{name}{text}: the file must end in one of {allowed}.")
    folder = path.absolute().parent
    if not folder.is_dir():
        raise ConfigError(f"{name}{text}: {unknown_path('folder', path.parent)}")
    check_writable(str(folder))
    return path
