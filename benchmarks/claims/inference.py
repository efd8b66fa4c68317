"""Does DS-ATGO cost parameters or time at inference? Claim A17.

    OMP_NUM_THREADS=1 python benchmarks/claims/inference.py

Evaluation of ResNet-19 at an eighth of its width on random images: the parameters with each method, and the CPU time of
a pass over that of fixed_sg. Both networks take turns, so that a change of the machine's load meets both.
"""

from __future__ import annotations

import time
from statistics import median
from typing import Any

import torch
from store import store

from gradspike.config.compose import load_config
from gradspike.tools.claims.summary import Record
from gradspike.training.build import build_model

SEEDS, PASSES, BATCH, SIZE = 5, 40, 50, 16
OPTIONS = (
    "dataset=cifar10",
    "model.width=0.125",
    "recipe=none",
    "dataset.image_size=16",
    "method.v_threshold=1.0",
    "engine=eager",
)


def main() -> None:
    """Measure and store."""
    torch.set_num_threads(1)
    runs = []
    for seed in range(SEEDS):
        torch.manual_seed(seed)
        images = torch.randn(BATCH, 3, SIZE, SIZE)
        models = {m: build_model(load_config([*OPTIONS, f"method={m}"])).eval() for m in ("fixed_sg", "ds_atgo")}
        seconds: dict[str, list[float]] = {name: [] for name in models}
        with torch.no_grad():
            for number in range(PASSES + 1):
                for name, model in models.items():
                    start = time.process_time()
                    model(images)
                    if number:  # the first pass also allocates
                        seconds[name].append(time.process_time() - start)
        for name, model in models.items():
            count = sum(parameter.numel() for parameter in model.parameters())
            ratio = median(seconds[name]) / median(seconds["fixed_sg"])
            runs.append(
                Record(
                    seed=seed,
                    parameters={"method": name},
                    values={"parameters": count, "inference_ratio": float(f"{ratio:.4g}")},
                )
            )
            print(f"seed {seed}, {name}: {count:,} parameters, {ratio:.3f} of the time of fixed_sg")
    setting: dict[str, Any] = {"dataset.name": "random images", "dataset.image_size": SIZE, "model.name": "resnet19"}
    store(
        __file__,
        "Does DS-ATGO cost parameters or time at inference?",
        "",
        setting | {"model.width": 0.125, "time_steps": 2, "dataset.batch_size": BATCH},
        runs,
    )


if __name__ == "__main__":
    main()
