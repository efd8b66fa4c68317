"""Makes the small CIFAR-10 of sweeps/claims/: 340 training and 200 test images of each class, the official splits.

    python benchmarks/claims/small_cifar10.py <cifar10.zip> cifar10_small.zip

Takes images at equal distances in the sorted names of each class, because neighbours in this order are often alike. The
source is an archive of split/class/name files.
"""

from __future__ import annotations

import sys
import zipfile
from collections import defaultdict

KEPT = {"train": 340, "test": 200}


def main(source: str, target: str) -> None:
    """Write the archive `target`."""
    classes: dict[tuple[str, str], list[str]] = defaultdict(list)
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in sorted(name for name in old.namelist() if not name.endswith("/")):
            split, label = name.split("/")[-3:-1]
            classes[split, label].append(name)
        for (split, _), names in classes.items():
            for place in range(KEPT[split]):
                name = names[place * len(names) // KEPT[split]]
                new.writestr(name, old.read(name))


if __name__ == "__main__":
    main(*sys.argv[1:])
