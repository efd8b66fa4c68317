"""The group that each group is compared with, and differences of differences where two things vary."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import yaml

from gradspike.errors import ConfigError, unknown
from gradspike.json_text import to_json
from gradspike.shown import listed
from gradspike.statistics import Paired, holm, paired
from gradspike.tools.compare.groups import Group, Grouping, sortable, text_of

DEFAULT_BASELINE = "fixed_sg"
METHOD = "method"
OF_METHOD = ("method.", "neuron.")


@dataclass(frozen=True)
class Factor:
    """Something that varies, and its reference value: `method` or a swept key."""

    key: str
    value: str
    """As text; of `method`, the label."""


@dataclass(frozen=True)
class Baseline:
    """The baseline as named, and the partner of each group by the group's name."""

    name: str
    factor: Factor | None
    """None for a single group."""
    of: dict[str, Group]
    unpaired: tuple[str, ...] = ()
    """Groups that should have a partner but do not."""


@dataclass(frozen=True)
class Interaction:
    """The difference of a group from its baseline, minus the same difference where another key has its reference."""

    group: Group
    factor: Factor
    reference: Group
    """The group whose difference is subtracted."""
    paired: Paired
    corrected_p: float


def find_baseline(grouping: Grouping, words: Sequence[str]) -> Baseline | None:
    """The baseline named by the first of `words`; without words fixed_sg, or None if there is no such method.

    A word names a method, a group, or a value of a swept key: `method=lsg`, `method.width=0.5`. Each group is paired
    with the one that has this value and is equal in all other settings. Raises ConfigError for an unknown baseline, and
    for one that no group can be compared with.
    """
    labels = list(dict.fromkeys(group.label for group in grouping.groups))
    if not words and DEFAULT_BASELINE not in labels:
        return None
    word = words[0] if words else f"{METHOD}={DEFAULT_BASELINE}"
    by_name = {group.name: group for group in grouping.groups}
    if word in by_name and word not in labels:
        one = by_name[word]
        return Baseline(word, None, {name: one for name, group in by_name.items() if group is not one})
    factor = factor_of(grouping, word)
    of, unpaired = {}, []
    partners = Partners(grouping.groups, factor)
    for group in grouping.groups:
        if value_of(group, factor.key) == factor.value:
            continue
        if (partner := partners.of(group)) is None:
            unpaired.append(group.name)
        else:
            of[group.name] = partner
    if words and not of:
        raise ConfigError(
            f"--baseline {word}: no group has a partner that differs in {factor.key} only. The groups are "
            f"{listed(by_name)}"
        )
    return Baseline(_shown(grouping, factor), factor, of, tuple(unpaired))


def factor_of(grouping: Grouping, word: str) -> Factor:
    """The key and value that `word` names. Raises ConfigError."""
    labels = list(dict.fromkeys(group.label for group in grouping.groups))
    key, equals, value = word.partition("=")
    if not equals:
        if word not in labels:
            names = dict.fromkeys([*labels, *(group.name for group in grouping.groups)])
            raise ConfigError(f"--baseline: {unknown('method or group', word, names)}")
        return Factor(METHOD, word)
    long = {short: key for key, short in grouping.short.items()}
    key = long.get(key, key)
    if key not in (METHOD, *grouping.swept):
        raise ConfigError(f"--baseline: {unknown('varying setting', key, [METHOD, *grouping.swept])}")
    found = dict.fromkeys(known for group in grouping.groups if (known := value_of(group, key)) is not None)
    if key != METHOD and value not in found:
        value = text_of(yaml.safe_load(value))
    if value not in found:
        raise ConfigError(f"--baseline: {unknown(f'value of {key}', value, found)}")
    return Factor(key, value)


def value_of(group: Group, key: str) -> str | None:
    """The value of a group's key as text, or None if it has none."""
    if key == METHOD:
        return group.label
    return text_of(group.settings[key]) if key in group.settings else None


class Partners:
    """The groups with a factor's value, found by all their other settings."""

    def __init__(self, groups: Iterable[Group], factor: Factor) -> None:
        self._key = factor.key
        self._found: dict[str, list[Group]] = {}
        for group in groups:
            if value_of(group, factor.key) == factor.value:
                self._found.setdefault(self._place(group), []).append(group)

    def of(self, group: Group) -> Group | None:
        """The one that is equal to `group` in all other settings; None if there is not just one.

        Between two methods, options that only one of them has, or that only one of them varies, do not count.
        """
        candidates = self._found.get(self._place(group), [])
        if len(candidates) > 1 and self._key == METHOD:
            own = group.settings
            candidates = [
                one for one in candidates if all(own.get(key, value) == value for key, value in one.settings.items())
            ]
        return candidates[0] if len(candidates) == 1 else None

    def _place(self, group: Group) -> str:
        if self._key == METHOD:
            return to_json({key: value for key, value in group.settings.items() if not key.startswith(OF_METHOD)})
        others = {key: value for key, value in group.settings.items() if key != self._key}
        return to_json([group.label, others])


def interactions(
    grouping: Grouping, baseline: Baseline, words: Sequence[str], accuracies: Mapping[str, Mapping[int, float]]
) -> list[Interaction]:
    """Differences of differences: of each pair, for each further key that varies.

    words: values of further keys to take as their reference (`--baseline` from the second on); by default fixed_sg of
    the methods, and the first value along the sweep of another key. accuracies: by the group's name and seed.
    """
    if baseline.factor is None:
        return []
    named = {factor.key: factor for factor in (factor_of(grouping, word) for word in words)}
    if baseline.factor.key in named:
        raise ConfigError(f"--baseline: {baseline.factor.key} is named twice. Name a second key, or one only.")
    found: list[tuple[Group, Factor, Group, Paired]] = []
    for key in (METHOD, *grouping.swept):
        factor = named.get(key) or _reference(grouping.groups, key)
        if key == baseline.factor.key or factor is None:
            continue
        partners = Partners(grouping.groups, factor)
        for group in grouping.groups:
            if group.name not in baseline.of or value_of(group, key) in (factor.value, None):
                continue
            other = partners.of(group)
            if other is None or other.name not in baseline.of:
                continue
            here, there = (_difference(one, baseline.of[one.name], accuracies) for one in (group, other))
            if (pair := paired(here, there)) is not None:
                found.append((group, factor, other, pair))
    corrected = holm([pair.p for *_, pair in found])
    return [Interaction(*one, p) for one, p in zip(found, corrected, strict=True)]


def _difference(group: Group, other: Group, accuracies: Mapping[str, Mapping[int, float]]) -> dict[int, float]:
    own, base = accuracies[group.name], accuracies[other.name]
    return {seed: value - base[seed] for seed, value in own.items() if seed in base}


def _reference(groups: Sequence[Group], key: str) -> Factor | None:
    """The default reference of a key; None if it does not vary."""
    if key == METHOD:
        labels = dict.fromkeys(group.label for group in groups)
        first = DEFAULT_BASELINE if DEFAULT_BASELINE in labels else next(iter(labels))
        return Factor(key, first) if len(labels) > 1 else None
    values = {text_of(group.settings[key]): group.settings[key] for group in groups if key in group.settings}
    if len(values) < 2:
        return None
    return Factor(key, min(values, key=lambda text: sortable(values[text])))


def _shown(grouping: Grouping, factor: Factor) -> str:
    return factor.value if factor.key == METHOD else f"{grouping.short[factor.key]}={factor.value}"
