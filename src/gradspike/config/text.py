"""Keeps text exactly as typed, even if Hydra's grammar would read a number or refuse it.

`runs_dir=007`, `dataset.train_folder=1` and `dataset.source=jose (lab)` get the quotes that the grammar needs.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from gradspike.config.overrides import quoted
from gradspike.config.schema import ExperimentConfig
from gradspike.config.validate import PLUGGABLE
from gradspike.errors import ConfigError
from gradspike.registry import Strict

Kind = Literal["text", "texts", "other"]


@dataclass(frozen=True)
class Doubt:
    """`key=value` that Hydra cannot read, or does not read as the typed text."""

    word: str
    key: str
    values: tuple[str, ...]
    readable: bool = True
    listed: bool = False

    @property
    def pluggable(self) -> bool:
        """Whether the key is an option of a data set, model or method, whose schema depends on the choice."""
        return self._name.partition(".")[0] in PLUGGABLE and "." in self._name

    @property
    def _name(self) -> str:
        return self.key.lstrip("+")

    def settled(self, groups: Collection[str], composed: Mapping[str, Any] | None = None) -> str:
        """The word, quoted if its key holds text in the configuration `composed` (None: in any)."""
        kind = "text" if self._name in groups else _kind(self._name, composed)
        if kind == "text":
            whole = (self.word.partition("=")[2],) if self.listed else self.values
            return f"{self.key}={','.join(map(quoted, whole))}"
        if kind == "texts" and self.listed:
            return f"{self.key}=[{','.join(map(quoted, self.values))}]"
        return self.word


def doubts(words: Sequence[str]) -> dict[int, Doubt]:
    """The words whose value may be text that Hydra would not read as typed, by their position."""
    return {place: found for place, word in enumerate(words) if (found := _doubtful(word)) is not None}


def _doubtful(word: str) -> Doubt | None:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import ChoiceSweep
    from hydra.errors import HydraException

    key, equals, text = word.partition("=")
    if not equals or key.startswith("~") or "${" in text or "\\" in text:
        return None
    try:
        override = OverridesParser.create().parse_override(word)
    except HydraException:
        if (texts := _listed(text)) is not None:
            return Doubt(word, key, texts, readable=False, listed=True)
        # With a comma or a brace it may be a mistyped list or dictionary.
        return None if set(text) & set(",{}") else Doubt(word, key, (text,), readable=False)
    value: Any = override._value
    if isinstance(value, ChoiceSweep) and value.simple_form:
        if set(text) & set("'\"[](){}"):
            return None
        values = tuple(one.strip() for one in text.split(","))
        return None if tuple(value.list) == values else Doubt(word, key, values)
    if isinstance(value, (str, int, float)) and value != text:  # a truth value is an int
        return Doubt(word, key, (text,))
    if not isinstance(value, list):
        return None
    texts = _listed(text)
    return None if texts is None else Doubt(word, key, texts, listed=True)


def _listed(text: str) -> tuple[str, ...] | None:
    """The texts of a list without quotes, `[a, b]`; None for anything else."""
    match = re.fullmatch(r"\s*\[([^'\"\[\](){}]*)\]\s*", text)
    if match is None:
        return None
    texts = tuple(one.strip() for one in match[1].split(",")) if match[1].strip() else ()
    return texts if all(texts) else None


def _kind(key: str, composed: Mapping[str, Any] | None) -> Kind | None:
    """What the schema expects at a dotted key; None if unknown."""
    section, *path = key.split(".")
    classes: list[type[Strict]] = [ExperimentConfig]
    if section in PLUGGABLE:
        registry, options = PLUGGABLE[section], (composed or {}).get(section)
        if not isinstance(options, Mapping) or "name" not in options:
            return None
        try:
            classes = [registry.config_class(registry.part(options))]
        except ConfigError:
            return None  # validation reports it
    else:
        path = [section, *path]
    kinds = set(_kinds(classes, path))
    return kinds.pop() if len(kinds) == 1 else None


def _kinds(classes: Sequence[type[Strict]], path: Sequence[str]) -> Iterator[Kind]:
    if not path:
        return
    for found in classes:
        field = found.model_fields.get(path[0])
        if field is None:
            continue
        if len(path) == 1:
            yield _kind_of(field.annotation)
        else:
            members = list(_members(field.annotation))
            yield from _kinds([one for one in members if isinstance(one, type) and issubclass(one, Strict)], path[1:])


def _members(annotation: Any) -> Iterator[Any]:
    """The types in an annotation, without Annotated and None."""
    if get_origin(annotation) is Annotated:
        yield from _members(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, UnionType):
        for member in get_args(annotation):
            yield from _members(member)
    elif annotation is not type(None):
        yield annotation


def _kind_of(annotation: Any) -> Kind:
    members = list(_members(annotation))
    if members == [str]:
        return "text"
    listed = all(get_origin(one) in (tuple, list) and list(_members(get_args(one)[0])) == [str] for one in members)
    return "texts" if members and listed else "other"
