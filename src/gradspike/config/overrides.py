"""Text as Hydra overrides (`key=value`), in whose grammar parentheses, commas, numbers and `${` are special."""

from __future__ import annotations

import re
import shlex

PLAIN = re.compile(r"[A-Za-z_./-][\w./:@%+-]*", re.ASCII)
RESERVED = {"null", "true", "false", "nan", "inf"}


def override(key: str, text: str) -> str:
    """The override that sets `key` to exactly `text`."""
    return f"{key}={text if _is_plain(text) else quoted(text)}"


def typed_text(word: str) -> str:
    """`key=text` as a user types it in a shell, in quotes so that Hydra reads exactly `text`."""
    key, _, text = word.partition("=")
    return shlex.quote(f"{key}={quoted(text, double=True)}")


def quoted(text: str, double: bool = False) -> str:
    """`text` in single or double quotes and escaped, so that Hydra and OmegaConf read exactly `text`."""
    from hydra.core.override_parser.types import Quote, QuotedString

    # `${` starts an interpolation unless an odd number of backslashes precedes it.
    escaped = re.sub(r"(\\*)\$\{", r"\1\1\\${", text)
    return QuotedString(text=escaped, quote=Quote.double if double else Quote.single).with_quotes()


def _is_plain(text: str) -> bool:
    number = re.fullmatch(r"[+-]?(\.?\d.*|inf|nan)", text, re.IGNORECASE)
    return PLAIN.fullmatch(text) is not None and text.lower() not in RESERVED and not number
