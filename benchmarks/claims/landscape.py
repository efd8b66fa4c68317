"""Is the loss surface around a network of DS-ATGO flatter than around one with a fixed surrogate? Claim A14.

    gradspike sweep sweeps/claims/landscape.yaml dataset.source=cifar10_small.zip engine=eager workers=2
    python benchmarks/claims/landscape.py runs/sweeps/landscape

Runs `gradspike landscape` on the last weights of every finished trial: validation split, one pair of filter-normalised
random directions, the same for all runs. Surfaces that are already there are not computed again.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from store import store

from gradspike.__main__ import main as gradspike
from gradspike.tools.claims.collect import collect
from gradspike.tools.claims.pictures import LOSS
from gradspike.tools.claims.summary import Record

POINTS, EXTENT = 13, 1.0


def surface(run: Path) -> Record:
    """Compute or continue the surface around the last weights of a run."""
    out = run / "landscape_claim"
    if gradspike(["landscape", f"run={run}", f"points={POINTS}", f"extent={EXTENT}", f"out={out}"]):
        raise SystemExit(f"gradspike landscape failed on {run}")
    found = json.loads((out / "landscape.json").read_text(encoding="utf-8"))
    values = {
        "loss": found["centre"]["loss"],
        "loss_rise": found["flatness"]["median_increase_at_half"],
        "flat_share": found["flatness"]["share_below_twice_centre"],
    }
    grid = tuple(tuple(None if one is None else float(f"{one:.4g}") for one in row) for row in found["loss"])
    return Record(
        seed=int(found["labels"]["seed"]),
        parameters={"method": found["labels"]["method"]},
        values={name: float(f"{value:.4g}") for name, value in values.items()},
        grids={LOSS: grid},
    )


def main(sweep: str) -> None:
    """Measure and store."""
    folder = Path(sweep)
    trained = collect(folder)
    trials = [json.loads(file.read_text(encoding="utf-8")) for file in folder.glob("trials/*/trial.json")]
    trials = sorted((one for one in trials if one["state"] == "finished"), key=lambda one: int(one["number"]))
    runs = [surface(folder / one["run"]) for one in trials]
    store(
        __file__,
        trained.question,
        "runs/sweeps/landscape",
        trained.setting | {"points": POINTS, "extent": EXTENT},
        runs,
        before=trained.command,
    )


if __name__ == "__main__":
    main(sys.argv[1])
