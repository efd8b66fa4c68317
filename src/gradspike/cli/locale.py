"""Names are UTF-8 in every locale."""

from __future__ import annotations

import os
import sys

_MODE = "PYTHONUTF8"


def read_names_as_utf8() -> None:
    """In a locale with another encoding, start this program again in Python's UTF-8 mode, in the same process.

    Python would read the letters of paths and arguments as bytes that are not text, which W&B, SQLite and the run's
    files cannot store. What the program prints keeps the locale's encoding. `python -X utf8=0` prevents the restart.
    """
    if sys.getfilesystemencoding() == "utf-8" or os.environ.get(_MODE) == "1" or not sys.executable:
        return
    if sys.stdout is not None and not os.environ.get("PYTHONIOENCODING"):
        os.environ["PYTHONIOENCODING"] = sys.stdout.encoding
    os.environ[_MODE] = "1"
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
