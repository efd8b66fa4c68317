"""`python -m helpers.failing_loader HOW`: one epoch of a loader whose worker fails; prints the error that ends it.

A process of its own: PyTorch reports a killed worker from a signal handler, which would raise inside pytest.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from dataclasses import dataclass, field

import numpy as np

from gradspike.data.loader import EpochLoader, loader_failure
from gradspike.data.source import Samples

MAIN = os.getpid()


@dataclass
class Failing:
    """Samples whose worker fails at sample 6."""

    how: str
    shape: tuple[int, ...] = (12, 1, 64, 64)
    dtype: np.dtype = field(default_factory=lambda: np.dtype(np.uint8))

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        if 6 in indices and os.getpid() != MAIN:
            if self.how == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            elif self.how == "exit":
                os._exit(1)
            elif self.how == "shm":  # as on a full file system: no file of this process may grow beyond 100 bytes
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
            elif self.how == "files":
                raise OSError(24, "Too many open files")
            elif self.how == "bug":
                raise RuntimeError("a fault of its own")
        return np.zeros((len(indices), *self.shape[1:]), dtype=np.uint8)


def loader(how: str, workers: int = 2) -> EpochLoader:
    """Six batches of two samples."""
    samples = Samples(Failing(how), np.zeros(12, dtype=np.int64), np.zeros(12, dtype=np.uint8))
    batches = [np.array([first, first + 1]) for first in range(0, 12, 2)]
    return EpochLoader(samples, lambda: batches, len(batches), workers)


if __name__ == "__main__":
    ended: Exception | None = None
    while ended is None:
        try:
            list(loader(sys.argv[1]))
        except Exception as error:
            ended = error
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    print(type(ended).__name__, ended, loader_failure(ended), flush=True)
    os._exit(0)
