"""The command line of a trial, and its check against the configuration.

This runner passes the same words as W&B's agent (`<name>=<value>`, Python's str), so both train the same. It quotes
only text that Hydra would not read as one value and that W&B's agent cannot pass.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from gradspike.cli.arguments import CONFIG_DIR, take_config_dir
from gradspike.config.compose import load_config
from gradspike.config.marks import always_shown
from gradspike.config.overrides import override
from gradspike.config.schema import ExperimentConfig
from gradspike.errors import ConfigError, unknown
from gradspike.shown import shell_words
from gradspike.started import child_command, typed_command
from gradspike.tools.sweep.file import SweepFile

PLAIN = re.compile(r"[\w.-]+", re.ASCII)
MACROS = ("${env}", "${interpreter}", "${program}", "${args_no_hyphens}")
ENVIRONMENT = re.compile(r"\$\{envvar:([A-Z0-9_]*)\}")
ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=.*", re.DOTALL)


@dataclass(frozen=True)
class Words:
    """The parts of the command line of all trials.

    `fixed` and `constants` come from the file, `typed` from the user. The last word for a key wins.
    """

    environment: dict[str, str]
    config_dir: str | None
    fixed: tuple[str, ...]
    constants: tuple[str, ...]
    typed: tuple[str, ...]

    def of(self, values: dict[str, Any]) -> list[str]:
        """The overrides of a trial with these parameter values, each key once."""
        written = [written_as(name, value) for name, value in values.items()]
        return merged([*self.fixed, *self.constants, *written, *self.typed])

    def shaping(self, values: dict[str, Any]) -> list[str]:
        """The overrides that affect the result: all but those that may change on resume, unless they are swept."""
        return [word for word in self.of(values) if not is_free(word) or key_of(word) in values]

    @property
    def free(self) -> list[str]:
        """The typed overrides that may also be passed when a run is resumed."""
        return [word for word in self.typed if is_free(word)]

    def command(self, overrides: Sequence[str]) -> list[str]:
        """The command that trains with `overrides`."""
        return child_command("train", *self._flags(), *overrides)

    def shown(self, overrides: Sequence[str]) -> str:
        """The same command for pasting into a shell."""
        return typed_command("train", *self._flags(), *overrides)

    def _flags(self) -> list[str]:
        return [] if self.config_dir is None else [CONFIG_DIR, self.config_dir]


def build(file: SweepFile, typed: Sequence[str], config_dir: str | None = None) -> Words:
    """The words of a sweep. A typed `config_dir` wins over the one of the file.

    Raises ConfigError for a command other than `train.py key=value ...`.
    """
    _check_program(file)
    environment, rest = _split_command(file)
    own_dir, fixed = _config_dir(rest, file)
    for word in typed:
        key = key_of(word)
        if key in file.swept:
            raise ConfigError(f"{word}: {file.path} sweeps {key}; change it there.")
        if key in ("runs_dir", "resume"):
            raise ConfigError(f"{word}: the sweep sets {key} itself. Choose its folder with folder=...")
    constants = [written_as(name, value) for name, value in file.constants.items()]
    return Words(
        environment,
        config_dir or own_dir,
        # Only W&B's agent needs logger=wandb, to get the result. Here the user can type it.
        tuple(_without_logger(fixed)),
        tuple(_without_logger(constants)),
        tuple(merged(typed)),
    )


def written_as(name: str, value: Any) -> str:
    """The override that sets a parameter to a value of the file."""
    return _quoted_if_needed(name, value) if isinstance(value, str) else f"{name}={value}"


@cache
def _quoted_if_needed(name: str, text: str) -> str:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    word = f"{name}={text}"
    if PLAIN.fullmatch(text):
        return word
    try:
        one_value = not OverridesParser.create().parse_override(word).is_sweep_override()
    except HydraException:
        one_value = False
    return word if one_value and text == text.strip() else override(name, text)


def key_of(word: str) -> str:
    """The key of an override."""
    return word.partition("=")[0].lstrip("+~")


def merged(words: Iterable[str]) -> list[str]:
    """Each key once, in the order of its first occurrence, with its last value."""
    return list({key_of(word): word for word in words}.values())


def is_free(word: str) -> bool:
    """Whether an override may change when a run is resumed."""
    return always_shown(key_of(word))


def check(overrides: list[str], words: Words) -> ExperimentConfig:
    """The configuration of a trial. Raises a ConfigError that names the trial."""
    try:
        return load_config(overrides, words.config_dir)
    except ConfigError as error:
        raise ConfigError(f"The trial  {shell_words(overrides)}\n{error}") from error


def _check_program(file: SweepFile) -> None:
    """Raise ConfigError unless W&B's agent would start gradspike's training script.

    Trials use the package that runs the sweep, even if the script belongs to another clone or does not exist.
    """
    program = Path(file.options.program)
    ours = Path("src/train.py")
    if program.parts[-2:] == ours.parts and program.is_file():
        right = "gradspike" in program.read_text(encoding="utf-8", errors="replace")
    else:
        right = program == ours
    if not right:
        raise ConfigError(f"{file.path}: program={program}: must be src/train.py of gradspike")


def _split_command(file: SweepFile) -> tuple[dict[str, str], list[str]]:
    """The variables set before the interpreter, and the words after the program other than the parameters."""
    command = [ENVIRONMENT.sub(lambda found: os.environ.get(found[1], found[1]), word) for word in file.options.command]
    for word in command:
        if word.startswith("${") and word not in MACROS:
            raise ConfigError(
                f"{file.path}: command: {unknown('macro', word, [*MACROS, '${envvar:NAME}'])}. Hydra reads key=value, "
                "which is ${args_no_hyphens}."
            )
    for macro in ("${program}", "${args_no_hyphens}"):
        if command.count(macro) != 1:
            raise ConfigError(f"{file.path}: command: must contain {macro} once.")
    before, after = command[: command.index("${program}")], command[command.index("${program}") + 1 :]
    environment = {}
    for word in before:
        if word in ("${env}", "${interpreter}", "python"):
            continue
        if not ASSIGNMENT.fullmatch(word):
            raise ConfigError(f"{file.path}: command: {word}: only NAME=value is allowed before ${{program}}.")
        name, _, value = word.partition("=")
        environment[name] = value
    return environment, [word for word in after if word != "${args_no_hyphens}"]


def _config_dir(words: list[str], file: SweepFile) -> tuple[str | None, list[str]]:
    try:
        rest, folder = take_config_dir(words)
    except ConfigError as error:
        raise ConfigError(f"{file.path}: command: {error}") from error
    for word in rest:
        if word.startswith("-") or "=" not in word:
            raise ConfigError(f"{file.path}: command: {word}: write key=value; the only flag allowed is {CONFIG_DIR}.")
    return folder, rest


def _without_logger(words: Iterable[str]) -> list[str]:
    return [word for word in words if key_of(word).partition(".")[0] != "logger"]
