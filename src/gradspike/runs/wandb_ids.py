"""The ids of a run in W&B."""

from __future__ import annotations

import re
from pathlib import Path


def wandb_ids(folder: Path) -> list[str]:
    """The ids under which W&B's client has written into a run folder, newest first."""
    names = sorted((path.name.removeprefix("offline-") for path in (folder / "wandb").glob("*run-*-*")), reverse=True)
    found = (re.fullmatch(r"run-\d+_\d+-(.+)", name) for name in names)
    return list(dict.fromkeys(one[1] for one in found if one))
