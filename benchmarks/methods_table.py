"""Accuracy, firing rate and gradient-available share of every method over seeds, as a Markdown table.

    python src/train.py -m dataset=digits_events method=fixed_sg,lsg,mpd_agl seed=0,1,2,3,4 runs_dir=runs/methods
    python benchmarks/methods_table.py runs/methods [table.md]

Last epoch, test split: no epoch is chosen by anything. Runs that differ in more than method and seed are refused, and
so are runs that are not finished.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import yaml

from gradspike.runs import RunFolder, write_atomically

# What may differ between rows: the method itself, what repeats it, and where things lie.
FREE = ("method", "seed", "data_dir", "runs_dir", "logger", "trainer.progress", "resume", "recipe")


def fixed_part(run: RunFolder) -> dict[str, Any]:
    """The configuration that all rows must share."""
    config = yaml.safe_load((run.path / "config.yaml").read_text(encoding="utf-8"))
    for key in FREE:
        section, _, name = key.partition(".")
        if name:
            config[section].pop(name, None)
        else:
            config.pop(section, None)
    return config


def numbers(run: RunFolder) -> dict[str, float]:
    """What one run adds to its row, in percent."""
    summary = run.summary()
    records = [json.loads(line) for line in run.metrics.read_text(encoding="utf-8").splitlines()]
    probe = [record for record in records if "probe_val/mean/gradient_available" in record][-1]
    last = summary["test"]["last"]
    return {
        "accuracy": 100 * last["accuracy"],
        "firing rate": 100 * last["firing_rate"],
        "gradient available": 100 * probe["probe_val/mean/gradient_available"],
        "spread over layers": 100 * probe["probe_val/spread_layers/gradient_available"],
    }


def spread(values: list[float]) -> str:
    """Mean and standard deviation (n - 1)."""
    deviation = statistics.stdev(values) if len(values) > 1 else math.nan
    return f"{statistics.mean(values):.2f} ± {deviation:.2f}"


def table(folder: Path) -> str:
    """One row a method, best mean accuracy first. Raises SystemExit for runs that cannot be compared."""
    runs = [RunFolder(path.parent) for path in sorted(folder.glob("*/config.yaml"))]
    unfinished = [str(run.path) for run in runs if run.state() != "finished"]
    if not runs or unfinished:
        raise SystemExit(f"No finished runs in {folder}." if not runs else f"Not finished: {', '.join(unfinished)}")
    for run in runs[1:]:
        if fixed_part(run) != fixed_part(runs[0]):
            raise SystemExit(f"{run.path} differs from {runs[0].path} in more than method and seed.")
    rows: dict[str, dict[int, dict[str, float]]] = defaultdict(dict)
    for run in runs:
        summary = run.summary()
        if summary["seed"] in rows[summary["method"]]:
            raise SystemExit(f"{run.path}: seed {summary['seed']} of {summary['method']} is there twice.")
        rows[summary["method"]][summary["seed"]] = numbers(run)
    columns = list(next(iter(next(iter(rows.values())).values())))
    lines = [
        f"| method | seeds | {' | '.join(f'{column} (%)' for column in columns)} |",
        "|---|---|" + "---|" * len(columns),
    ]
    by_accuracy = sorted(rows, key=lambda name: -statistics.mean(run["accuracy"] for run in rows[name].values()))
    for name in by_accuracy:
        seeds = rows[name].values()
        cells = [spread([run[column] for run in seeds]) for column in columns]
        lines.append(f"| `{name}` | {len(seeds)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    text = table(Path(sys.argv[1]))
    print(text, end="")
    if len(sys.argv) > 2:
        write_atomically(Path(sys.argv[2]), text)
