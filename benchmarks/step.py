"""Time per training step of each engine and method, against the ReLU twin (= 1.00) in the same run.

    python benchmarks/step.py [method ...]

The same small network on the same batch: forward, backward and optimiser step. Repeats of all candidates are
interleaved, so that a machine that slows down slows all of them; median and spread (10th to 90th percentile) of the
ratios to the twin are printed.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import torch

from gradspike.cli import load_config
from gradspike.losses import build_loss
from gradspike.models.build import build_model
from gradspike.optim import build_optimizer

REPEATS, STEPS, BATCH = 15, 3, 32
SETTINGS = {
    "digits_events, T = 6, fp32": ["dataset=digits_events"],
    "digits_events, T = 6, bf16": ["dataset=digits_events", "trainer.precision=bf16"],
}


def stepper(words: list[str]) -> Callable[[], None]:
    """A function that trains `STEPS` steps of the configuration's network on one random batch of event frames."""
    config = load_config(words)
    torch.manual_seed(0)
    model = build_model(config).to(memory_format=torch.channels_last)
    optimizer, criterion = build_optimizer(config.optimizer, model), build_loss(config.loss)
    size = config.dataset.image_size
    frames = torch.randint(0, 3, (config.time_steps, BATCH, config.dataset.channels, size, size)).float()
    labels = torch.randint(0, config.dataset.classes, (BATCH,))

    def steps() -> None:
        for _ in range(STEPS):
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast("cpu", torch.bfloat16, enabled=config.trainer.precision == "bf16"):
                logits = model(frames)
            criterion(logits, labels).backward()
            optimizer.step()

    return steps


def main(methods: list[str]) -> None:
    """Print one table for each setting."""
    for title, words in SETTINGS.items():
        candidates = {"ReLU twin": stepper([*words, "model.activation=relu"])}
        candidates |= {f"eager, {method}": stepper([*words, f"method={method}"]) for method in methods}
        seconds: dict[str, list[float]] = {name: [] for name in candidates}
        for repeat in range(REPEATS + 1):
            for name, steps in candidates.items():
                start = time.perf_counter()
                steps()
                if repeat:  # the first round warms up
                    seconds[name].append((time.perf_counter() - start) / STEPS)
        twin = seconds["ReLU twin"]
        place = f"batch {BATCH}, {torch.get_num_threads()} threads"
        print(f"\n{title}, {place}: twin {1000 * statistics.median(twin):.1f} ms a step")
        for name, times in seconds.items():
            ratios = [mine / its for mine, its in zip(times, twin, strict=True)]
            low, *_, high = statistics.quantiles(ratios, n=10)
            print(f"  {name:<24} {statistics.median(ratios):5.2f}   ({low:.2f} - {high:.2f})")


if __name__ == "__main__":
    main(sys.argv[1:] or ["fixed_sg", "mpd_agl", "ds_atgo", "psg"])
