"""What a sweep trains, and what may change when the sweep continues."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gradspike.errors import ConfigError
from gradspike.shown import counted, shown
from gradspike.tools.sweep.file import SweepFile
from gradspike.tools.sweep.folder import SweepFolder
from gradspike.tools.sweep.options import SweepArguments
from gradspike.tools.sweep.proposals import Proposal
from gradspike.tools.sweep.study import Study
from gradspike.tools.sweep.words import Words

ABSENT = "not set"


def definition(file: SweepFile, words: Words, options: SweepArguments) -> dict[str, Any]:
    """All settings that must not change when a sweep continues, by key."""
    flat = {f"parameters.{name}": options for name, options in file.raw_parameters.items()}
    shaping = {f"every trial: {word.partition('=')[0]}": word for word in words.shaping({})}
    seed = {} if file.options.method == "grid" else {"sampler_seed": options.sampler_seed}
    ours = file.options.gradspike.model_dump(exclude_none=True)
    own = {"gradspike": ours} if ours else {}
    metric = file.options.metric.model_dump()
    return {"method": file.options.method, "metric": metric, **own, **seed, **flat, **shaping}


def check_same(
    study: Study, folder: SweepFolder, file: SweepFile, now: dict[str, Any], listed: Sequence[Proposal]
) -> None:
    """Raise ConfigError with the differences if the folder contains a sweep other than `now`.

    A grid may gain values, and a search may gain trials.
    """
    before = study.definition()
    if before is None or before == now:
        return
    there = {trial.user_attrs["key"] for trial in study.trials()}
    differing = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    grown = file.options.method == before["method"] == "grid" and there <= {proposal.key for proposal in listed}
    if grown and not {"method", "metric", "gradspike"} & set(differing):
        print(f"{shown(folder.path)}: {counted(len(listed) - len(there), 'new trial')}, {len(there)} from before.")
        return
    lines = [f"  {key}: was {before.get(key, ABSENT)}, is {now.get(key, ABSENT)}" for key in differing]
    raise ConfigError(
        f"{shown(folder.path)}: contains another sweep:\n" + "\n".join(lines) + "\nA grid may only gain values. "
        "Choose another folder=..., or use the old file (sweep.yaml in that folder)."
    )
