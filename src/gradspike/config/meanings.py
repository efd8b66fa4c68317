"""What keys mean: the comment behind each in the YAML files of the configuration."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import yaml


def meanings(file: Path) -> dict[str, str]:
    """Dotted key -> comment, of a YAML file and of the files in its list of defaults. The file's own comments win."""
    text = file.read_text(encoding="utf-8")
    found: dict[str, str] = {}
    for name in _defaults(yaml.safe_load(text)):
        beside = file.with_name(f"{name}.yaml")
        if name != file.stem and beside.is_file():
            found |= meanings(beside)
    return found | dict(_comments(yaml.compose(text), text.splitlines(), ""))


def _defaults(content: object) -> list[str]:
    entries = content.get("defaults", []) if isinstance(content, dict) else []
    return [one for one in entries if isinstance(one, str) and one != "_self_"]


def _comments(node: yaml.Node | None, lines: list[str], prefix: str) -> Iterator[tuple[str, str]]:
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        name = prefix + str(key.value)
        block = isinstance(value, yaml.MappingNode) and not value.flow_style
        if comment := _comment(lines, (key if block else value).end_mark):
            yield name, comment
        if block:
            yield from _comments(value, lines, f"{name}.")


def _comment(lines: list[str], end: yaml.Mark) -> str:
    """The comment behind a mark, with the lines below that continue it in the same column."""
    behind = lines[end.line][end.column :] if end.line < len(lines) else ""
    if not (start := behind.partition("#"))[1]:
        return ""
    column = end.column + len(start[0])
    parts = [start[2].strip()]
    for line in lines[end.line + 1 :]:
        if line[:column].strip() or line[column : column + 1] != "#":
            break
        parts.append(line[column + 1 :].strip())
    return " ".join(parts)
