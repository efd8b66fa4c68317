"""Names of pluggable parts (methods, models, data sets), without importing them.

A registry maps a name to the class that validates its options and to the import path of its implementation. Reading a
registry imports neither torch nor lightning, so that a mistyped option is answered at once; the implementation is
imported when it is built.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, model_validator

from gradspike.errors import ConfigError, did_you_mean


class Strict(BaseModel):
    """A part of the configuration: unknown keys are errors and values never change after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _no_bool_for_a_number(cls, values: Any) -> Any:
        # pydantic takes true for 1; whoever writes optimizer.lr=true meant another key.
        for name, value in values.items() if isinstance(values, dict) else ():
            field = cls.model_fields.get(name)
            if isinstance(value, bool) and field is not None and field.annotation in (int, float):
                raise ValueError(f"{name}={str(value).lower()}: must be a number")
        return values


ConfigT = TypeVar("ConfigT", bound=Strict)


@dataclass(frozen=True)
class Entry(Generic[ConfigT]):
    """`config` validates the options of a part, `path` ("module:Class") says where it is implemented."""

    config: type[ConfigT]
    path: str


class Registry(Generic[ConfigT]):
    """All parts of one kind by name; a name with a colon is the import path of a part that lives elsewhere.

    An implementation outside this package carries its config class as its attribute `Config`.
    """

    def __init__(self, kind: str, entries: dict[str, Entry[Any]]) -> None:
        self.kind = kind
        self._entries = entries

    @staticmethod
    def part(options: Mapping[str, Any]) -> str:
        """The registered name that validates and implements `options`: its library where it names one, else its name.

        A library holds many networks under names of its own, which are none of the registry's business.
        """
        return str(options.get("library") or options["name"])

    def names(self) -> list[str]:
        """The registered names, sorted."""
        return sorted(self._entries)

    def config_class(self, name: str) -> type[ConfigT]:
        """The class that validates the options of `name`. Raises ConfigError for an unknown name."""
        if ":" in name:
            config = getattr(self.implementation(name), "Config", None)
            if config is None:
                raise ConfigError(
                    f"{self.kind} '{name}' has no attribute `Config` (a class derived from gradspike's config)."
                )
            return config  # type: ignore[no-any-return]
        return self._entry(name).config

    def implementation(self, name: str) -> Any:
        """Import the implementation of `name`. Raises ConfigError when there is none."""
        path = name if ":" in name else self._entry(name).path
        module_name, _, attribute = path.partition(":")
        try:
            return getattr(importlib.import_module(module_name), attribute)
        except (ImportError, AttributeError, ValueError) as error:
            raise ConfigError(f"{self.kind} '{name}' cannot be imported: {error}") from error

    def _entry(self, name: str) -> Entry[ConfigT]:
        if name not in self._entries:
            raise ConfigError(
                f"There is no {self.kind} '{name}'.{did_you_mean(name, self._entries)} "
                f"Allowed: {', '.join(self.names())}, or an import path such as my_package.my_file:MyClass."
            )
        return self._entries[name]
