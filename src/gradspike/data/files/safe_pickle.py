"""Loads pickles of plain values and arrays without running code."""

from __future__ import annotations

import io
import pickle
import pickletools
from collections import OrderedDict
from collections.abc import Collection
from typing import Any

import numpy as np
from typing_extensions import override


class _CodeError(pickle.UnpicklingError):
    """A pickle calls something that numbers, strings and arrays do not need."""


class _Unpickler(pickle._Unpickler):
    """Builds numbers, strings, lists, dicts and numpy arrays and scalars, and refuses everything that could run code.

    Subclasses the pure Python unpickler, because the C one allocates any memo size that a damaged pickle requests.
    """

    @override
    def find_class(self, module: str, name: str) -> Any:
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return np.zeros(0).__reduce__()[0]
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "scalar":
            return np.int64(0).__reduce__()[0]
        if module in ("numpy.core.numeric", "numpy._core.numeric") and name == "_frombuffer":
            return np.zeros(0).__reduce_ex__(5)[0]
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) in (("numpy", "ndarray"), ("numpy", "dtype")):
            return getattr(np, name)
        if (module, name) == ("_codecs", "encode"):  # Python 3 pickles bytes this way in old protocols
            return _encode
        raise _CodeError(calls(f"{module}.{name}"))


def calls(code: str) -> str:
    """The reason to refuse a pickle that calls `code`."""
    return f"is a pickle that calls {code} when loaded, which is not allowed in a data file. It was not run"


def foreign_call(content: bytes, known: Collection[str]) -> str | None:
    """The first import of a pickle from outside the packages `known`, or None."""
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
    """Load a pickle of plain values and arrays. Raises ValueError if it is damaged or contains anything else."""
    try:
        return _Unpickler(io.BytesIO(content), encoding="latin1").load()
    except _CodeError as error:
        raise ValueError(str(error)) from error
    except Exception as error:  # a damaged pickle can fail in any operation
        # pickle puts a traceback behind its sentence.
        reason = "" if isinstance(error, LookupError) else str(next(iter(error.args), ""))
        raise ValueError(f"cannot be unpickled ({reason or type(error).__name__})") from error
