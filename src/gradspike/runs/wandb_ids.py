"""The ids of a run in W&B."""

from __future__ import annotations

import re
from pathlib import Path

from gradspike.runs.identity import stored_wandb_id


def wandb_ids(folder: Path) -> list[str]:
    """The ids of a run in W&B: the stored one, then those under which W&B's client has written into the run folder,
    newest first.
    """
    stored = stored_wandb_id(folder)
    names = sorted((path.name.removeprefix("offline-") for path in (folder / "wandb").glob("*run-*-*")), reverse=True)
    found = (re.fullmatch(r"run-\d+_\d+-(.+)", name) for name in names)
    return list(dict.fromkeys([*([stored] if stored else []), *(one[1] for one in found if one)]))
