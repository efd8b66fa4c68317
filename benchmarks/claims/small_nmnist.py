"""Makes the N-MNIST of sweeps/claims/nmnist.yaml: of each digit, half of the recordings train and half test.

    python benchmarks/claims/small_nmnist.py <nmnist_1100.zip> nmnist_small.zip

The source has 1,000 training and only 100 test recordings, too few to compare accuracies. Every second recording of
`Train`, in the order of the names of each digit, moves to `Test`. The recordings of `Test` stay there.
"""

from __future__ import annotations

import sys
import zipfile
from collections import defaultdict


def main(source: str, target: str) -> None:
    """Write the archive `target`."""
    recordings: dict[str, list[str]] = defaultdict(list)
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for name in sorted(name for name in old.namelist() if name.endswith(".bin")):
            split, digit, file = name.split("/")[-3:]
            if split == "Train":
                recordings[digit].append(name)
            else:
                new.writestr(f"Test/{digit}/test_{file}", old.read(name))
        for digit, names in recordings.items():
            for place, name in enumerate(names):
                split = "Test" if place % 2 else "Train"
                new.writestr(f"{split}/{digit}/train_{name.split('/')[-1]}", old.read(name))


if __name__ == "__main__":
    main(*sys.argv[1:])
