"""Parts (methods, models, data sets) by name, without importing them.

A registry line is a name and the import path of a class, whose attribute `Config` is the class of its options. Checking
options imports neither torch nor lightning, so mistakes are reported at once. A part is imported when it is built.
"""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from pydantic import BaseModel, ConfigDict, field_validator, model_validator

from gradspike.errors import ConfigError, did_you_mean, unknown
from gradspike.option_reader import ATTRIBUTE, PART_MODULES, NoSuchClass, read_config

NO_BOOL = ": must be a number"
LARGEST: dict[type, tuple[float, str]] = {int: (2**53, f"{2**53} (2^53)"), float: (1e38, "1e38")}
"""Whole numbers up to here are exact as floats, and fit where torch needs 64 bits. Others have 32 bits in a network."""


@dataclass(frozen=True)
class Allowed:
    """What `--help` prints for a text whose values a validator checks: metadata of `Annotated`."""

    words: str


class Strict(BaseModel):
    """A section of the configuration: unknown keys are errors, and values cannot change after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _no_bool_for_a_number(cls, values: Any) -> Any:
        # pydantic accepts true as 1, but optimizer.lr=true is a mistake.
        for name, value in values.items() if isinstance(values, dict) else ():
            field = cls.model_fields.get(name)
            if isinstance(value, bool) and field is not None and field.annotation in (int, float):
                raise ValueError(f"{name}={str(value).lower()}{NO_BOOL}")
        return values

    @field_validator("*")
    @classmethod
    def _no_number_beyond_all_use(cls, value: Any) -> Any:
        for number in value if isinstance(value, tuple | list) else (value,):
            if isinstance(number, int | float):
                most, text = LARGEST[int if isinstance(number, int) else float]
                if abs(number) > most:
                    raise ValueError(f"must be at most {text}" if number > 0 else f"must be at least -{text}")
        return value


ConfigT = TypeVar("ConfigT", bound=Strict)
PartT = TypeVar("PartT")


class Registry(Generic[ConfigT]):
    """All parts of one kind, by name. A name with a colon is the import path of a part outside this package.

    `base` is the base class of all option classes of this kind.
    """

    def __init__(self, kind: str, base: type[ConfigT], paths: Mapping[str, str]) -> None:
        self.kind = kind
        self.base = base
        self._paths = dict(paths)
        PART_MODULES.update(path.partition(":")[0] for path in paths.values())

    @staticmethod
    def part(options: Mapping[str, Any]) -> str:
        """The registered name of the part with these options: `library` if given, else `name`.

        For a library, `name` is the library's own name of the network.
        """
        return str(options.get("library") or options["name"])

    def names(self) -> list[str]:
        """The registered names, sorted."""
        return sorted(self._paths)

    def config_class(self, name: str) -> type[ConfigT]:
        """The class that validates the options of `name`. Raises ConfigError for an unknown or unusable part."""
        module, _, attribute = self._path(name).partition(":")
        try:
            config = read_config(module, attribute)
            readable = getattr(config, "__pydantic_complete__", True)
        except NoSuchClass as error:
            raise self._missing(name, module, attribute, error.classes) from error
        except Exception:  # importing the file below raises the same error and reports it
            readable = False
        if not readable:
            config = getattr(self.implementation(name), ATTRIBUTE, None)
        if not (isinstance(config, type) and issubclass(config, self.base)):
            raise ConfigError(
                f"{self.kind} '{name}': its attribute `{ATTRIBUTE}` must be a subclass of "
                f"{self.base.__module__}.{self.base.__name__}."
            )
        return config

    def implementation(self, name: str) -> Any:
        """Import the implementation of `name`. Raises ConfigError if that fails."""
        module_name, _, attribute = self._path(name).partition(":")
        module = imported(self.kind, name, module_name)
        if not hasattr(module, attribute):
            classes = [key for key, value in vars(module).items() if isinstance(value, type)]
            raise self._missing(name, module_name, attribute, classes)
        return getattr(module, attribute)

    def build(self, base: type[PartT], options: ConfigT, *arguments: Any) -> PartT:
        """Build the part with these options, which it gets as an instance of its own `Config`.

        Raises ConfigError if it cannot be imported or is not a subclass of `base`.
        """
        name = self.part(dict(options))
        implementation = self.implementation(name)
        if not (isinstance(implementation, type) and issubclass(implementation, base)):
            raise ConfigError(f"{self.kind} '{name}' must be a subclass of {base.__module__}.{base.__name__}.")
        make: Any = implementation
        own = getattr(implementation, ATTRIBUTE, None)
        if isinstance(own, type) and issubclass(own, Strict) and not isinstance(options, own):
            return cast("PartT", make(own.model_validate(options.model_dump(mode="json")), *arguments))
        return cast("PartT", make(options, *arguments))

    def _path(self, name: str) -> str:
        if ":" in name:
            return name
        if name not in self._paths:
            raise ConfigError(
                f"{unknown(self.kind, name, self.names())}, or an import path such as my_package.my_file:MyClass"
            )
        return self._paths[name]

    def _missing(self, name: str, module: str, attribute: str, classes: list[str]) -> ConfigError:
        return ConfigError(
            f"{self.kind} '{name}': {module} has no class '{attribute}'.{did_you_mean(attribute, classes)}"
        )


def imported(kind: str, name: str, module: str) -> Any:
    """The module of a part, imported. Raises ConfigError that says why it cannot be, if the part is not gradspike's.

    kind and name are what the message calls the part.
    """
    try:
        return importlib.import_module(module)
    except Exception as error:
        if ":" not in name and not isinstance(error, ImportError):
            raise
        missing = isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}.")
        hint = f". {_where_python_looks(module)}" if missing and ":" in name else ""
        raise ConfigError(f"{kind} '{name}' cannot be imported: {_described(error)}{hint}") from error


def _where_python_looks(module: str) -> str:
    """What to type so that Python finds a module."""
    top = module.partition(".")[0]
    here = Path(f"{top}.py").is_file() or Path(top).is_dir()
    folder = "." if here else "<folder>"
    what = "this folder" if here else f"the folder that has {top}.py or the package {top}"
    return f"Add {what} to PYTHONPATH, as in: PYTHONPATH={folder} gradspike ..."


def _described(error: Exception) -> str:
    """The error of an import, with file and line."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}, line {error.lineno}: {error.msg}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<frozen ")]
    if len(frames) < 3:
        return str(error)
    # The first two frames are this file's and importlib's; the third is the imported file's.
    folder = Path(frames[2].filename).parent
    frame = [frame for frame in frames if Path(frame.filename).is_relative_to(folder)][-1]
    return f"{frame.filename}, line {frame.lineno}: {type(error).__name__}: {error}"
