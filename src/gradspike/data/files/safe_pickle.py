"""Pickles of plain values and arrays, read without running code."""

from __future__ import annotations

import io
import pickle
import pickletools
from collections.abc import Collection
from typing import Any

import numpy as np
from typing_extensions import override


class _CodeError(pickle.UnpicklingError):
    """A pickle calls something that numbers, texts and arrays do not need."""


class _Unpickler(pickle._Unpickler):
    """Builds numbers, texts, lists, dicts and numpy arrays, and refuses everything that could run code.

    The one in Python, because the one in C allocates whatever size of memo a damaged pickle asks for.
    """

    @override
    def find_class(self, module: str, name: str) -> Any:
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return np.zeros(0).__reduce__()[0]
        if module in ("numpy.core.numeric", "numpy._core.numeric") and name == "_frombuffer":
            return np.zeros(0).__reduce_ex__(5)[0]
        if (module, name) in (("numpy", "ndarray"), ("numpy", "dtype")):
            return getattr(np, name)
        if (module, name) == ("_codecs", "encode"):  # how Python 3 writes bytes in old protocols
            return _encode
        raise _CodeError(calls(f"{module}.{name}"))


def calls(code: str) -> str:
    """The reason to refuse a pickle that calls `code`."""
    return f"is a pickle that calls {code} when it is loaded, which has no place in a data file. Nothing of it was run"


def foreign_call(content: bytes, known: Collection[str]) -> str | None:
    """The first thing that a pickle imports from elsewhere than the packages `known`; None if there is none."""
    texts: list[str] = []
    try:
        for operation, argument, _ in pickletools.genops(content):
            if isinstance(argument, str) and operation.name not in ("GLOBAL", "INST"):
                texts.append(argument)
            named = {"GLOBAL": argument, "INST": argument, "STACK_GLOBAL": " ".join(texts[-2:])}.get(operation.name)
            if isinstance(named, str) and named.partition(" ")[0].partition(".")[0] not in known:
                return named.replace(" ", ".")
    except Exception:  # a damaged pickle can fail anywhere
        return None
    return None


def _encode(text: str, encoding: str = "latin1") -> bytes:
    return text.encode(encoding)


def load_pickle(content: bytes) -> Any:
    """Load a pickle of plain values and arrays. Raises ValueError for any other and for a damaged one."""
    try:
        return _Unpickler(io.BytesIO(content), encoding="latin1").load()
    except _CodeError as error:
        raise ValueError(str(error)) from error
    except Exception as error:  # a damaged pickle can fail in any operation
        reason = "" if isinstance(error, LookupError) else str(error)
        raise ValueError(f"cannot be unpickled ({reason or type(error).__name__})") from error
