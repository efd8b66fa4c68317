"""The sockets of loader processes, whose paths in the folder for temporary files the system limits."""

from __future__ import annotations

import os
import sys
from multiprocessing import util

from gradspike.exhausted import LoaderError

LONGEST = 103 if sys.platform == "darwin" else 107
"""Bytes in the path of a socket."""
NAME = len("/listener-xxxxxxxx")


def check_socket_paths(workers: int) -> None:
    """Raise LoaderError if loader processes could not open their sockets; they would die and leave training waiting."""
    if not workers:
        return
    folder = util.get_temp_dir()  # of this process, in TMPDIR
    above = os.path.dirname(folder)
    most = LONGEST - NAME - len(os.path.basename(folder)) - 1
    if (length := len(os.fsencode(above))) > most:
        raise LoaderError(
            f"dataset.workers={workers}: the folder for temporary files, {above}, has a path of {length} bytes, but "
            f"the loader's sockets allow {most}. Set TMPDIR to a shorter path, or dataset.workers to 0."
        )
