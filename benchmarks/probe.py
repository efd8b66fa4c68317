"""Cost of the probe: training time with its default settings, relative to training without it.

    python benchmarks/probe.py [epochs=6] [repeats=2] [any override of gradspike train]

Plain and probed steps alternate in one training, and so do validations, so a machine that slows down slows both. The
cost of an epoch is computed from their medians:

    steps / every_n_steps * (probed step - step) + (first step - step) + (probed validation - validation)

as a share of the same epoch without the probe. The first step of an epoch counts separately, because it also watches
layers for spikes. The training runs `repeats` times to show the spread of the result.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import lightning as L

from gradspike.config.compose import load_config
from gradspike.config.schema import ExperimentConfig, ProbeConfig
from gradspike.loggers.jsonl import JsonLines
from gradspike.training.build import build_data
from gradspike.training.module import SpikingClassifier
from gradspike.training.probe.probe import Probe
from gradspike.training.trainer import build_trainer, quieten

SETTINGS = {
    "spiking_cnn, digits_events": ["dataset=digits_events"],
    "spiking_cnn of width 64, digits_events": ["dataset=digits_events", "model.width=64", "time_steps=4"],
    "spiking_cnn, digits": ["dataset=digits"],
    "the same, ds_atgo": ["dataset=digits", "method=ds_atgo"],
}


class EveryOtherValidation(Probe):
    """Probes only the validations of odd epochs."""

    def on_validation_batch_start(self, trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:
        if trainer.current_epoch % 2:
            super().on_validation_batch_start(trainer, *args, **kwargs)


class Start(L.Callback):
    """Records when a step or a validation starts; the first callback."""

    began = 0.0
    step = 0

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        self.step, self.began = trainer.global_step, time.perf_counter()

    def on_validation_start(self, *_: Any) -> None:
        self.began = time.perf_counter()


class Stop(L.Callback):
    """Records how long it took; the last callback. The first epoch is warm-up and not recorded."""

    def __init__(self, start: Start) -> None:
        self.start = start
        self.seconds: dict[str, list[float]] = defaultdict(list)

    def on_train_batch_end(self, trainer: L.Trainer, _module: Any, _outputs: Any, _batch: Any, batch_idx: int) -> None:
        probed = self.start.step % 2 == 0
        kind = "probed step" if probed else "step" if batch_idx else "first step"
        self._note(trainer, kind, time.perf_counter() - self.start.began)

    def on_validation_end(self, trainer: L.Trainer, *_: Any) -> None:
        kind = "probed validation" if trainer.current_epoch % 2 else "validation"
        self._note(trainer, kind, time.perf_counter() - self.start.began)

    def _note(self, trainer: L.Trainer, kind: str, seconds: float) -> None:
        if trainer.current_epoch:
            self.seconds[kind].append(seconds)


def medians(config: ExperimentConfig) -> tuple[dict[str, float], int]:
    """Median seconds of each kind of step and validation, and the number of steps in an epoch."""
    probe = EveryOtherValidation(config.probe.model_copy(update={"every_n_steps": 2}))
    start = Start()
    stop = Stop(start)
    with tempfile.TemporaryDirectory() as folder:
        trainer = build_trainer(config, [JsonLines(Path(folder) / "metrics.jsonl")], [start, probe, stop])
        trainer.fit(SpikingClassifier(config), build_data(config))
        return {kind: median(values) for kind, values in stop.seconds.items()}, int(trainer.num_training_batches)


def main() -> None:
    words = [word for word in sys.argv[1:] if not word.startswith(("epochs=", "repeats="))]
    options = {"epochs": 6, "repeats": 2}
    options |= {key: int(value) for key, value in (word.split("=") for word in sys.argv[1:] if word not in words)}
    quieten()
    default = ProbeConfig()
    print(f"every_n_steps={default.every_n_steps} samples={default.samples} histogram_bins={default.histogram_bins}")
    for name, setting in SETTINGS.items():
        config = load_config([*setting, f"trainer.max_epochs={options['epochs']}", *words])
        for _ in range(options["repeats"]):
            took, steps = medians(config)
            plain = steps * took["step"] + took["validation"]
            extra = {
                "steps": steps / config.probe.every_n_steps * (took["probed step"] - took["step"]),
                "watch": took["first step"] - took["step"],
                "validation": took["probed validation"] - took["validation"],
            }
            print(
                f"{name}: step {1e3 * took['step']:.1f} ms, probed {took['probed step'] / took['step']:.2f} x; "
                f"epoch {plain:.2f} s, probe {100 * sum(extra.values()) / plain:+.2f} % "
                f"({', '.join(f'{what} {100 * seconds / plain:+.2f}' for what, seconds in extra.items())})",
                flush=True,
            )


if __name__ == "__main__":
    main()
