"""Shows the progress of a training: a bar in a terminal, elsewhere one line per epoch."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import lightning as L
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text
from typing_extensions import override

from gradspike.config.schema import TrainerConfig
from gradspike.terminal.tables import console as terminal
from gradspike.training.callbacks.timing import Timing
from gradspike.training.module import SpikingClassifier
from gradspike.training.processes import is_first_process

SECONDS_BETWEEN_READS = 0.5  # reading loss and accuracy waits for the GPU


def progress(options: TrainerConfig, timing: Timing) -> list[L.Callback]:
    """The callbacks that show progress according to `trainer.progress`; none outside the first process."""
    out = terminal()
    if not is_first_process() or options.progress == "none":
        return []
    if options.progress == "bar" or (options.progress == "auto" and out.is_terminal):
        return [ProgressBar(out)]
    return [EpochLines(timing, out.width)]


def epoch_line(metrics: dict[str, float], epochs: int, width: int, further: Sequence[str] = ()) -> str:
    """`epoch  3/20  loss 0.213  acc  93.4 %  val loss 0.190  acc  95.6 %  firing 14.2 %`; only measured parts.

    `further` parts follow. What exceeds `width` continues in an indented line.
    """
    parts = [
        f"epoch {int(metrics['epoch']) + 1:>{len(str(epochs))}}/{epochs}",
        f"loss {metrics['train/loss']:.3f}",
        f"acc {100 * metrics['train/accuracy']:5.1f} %",
    ]
    if "val/loss" in metrics:
        parts += [f"val loss {metrics['val/loss']:.3f}", f"acc {100 * metrics['val/accuracy']:5.1f} %"]
    if "val/firing_rate" in metrics:
        parts.append(f"firing {100 * metrics['val/firing_rate']:4.1f} %")
    indent = " " * len(parts[0])
    lines = [parts[0]]
    for part in [*parts[1:], *further]:
        longer = f"{lines[-1]}  {part}"
        if len(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(f"{indent}  {part}")
    return "\n".join(lines)


class EpochLines(L.Callback):
    """Prints a line after each epoch, with the training speed and the time left."""

    def __init__(self, timing: Timing, width: int) -> None:
        self.timing, self.width = timing, width
        self._started = 0.0
        self._first_epoch = 0

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._started, self._first_epoch = time.perf_counter(), trainer.current_epoch

    @override
    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, SpikingClassifier)
        epochs = int(trainer.max_epochs or 0)
        done = trainer.current_epoch - self._first_epoch + 1
        left = (time.perf_counter() - self._started) / done * (epochs - trainer.current_epoch - 1)
        pace = (f"{self.timing.samples_per_second:.0f} samples/s", f"{_clock(left)} left")
        print(epoch_line(pl_module.epoch_metrics, epochs, self.width, pace), flush=True)


class ProgressBar(L.Callback):
    """Shows a bar over the whole training with running loss, accuracy, speed and time left, and a line per epoch."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._progress: Progress | None = None

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=14),
            TextColumn("{task.percentage:>3.0f} %", markup=False),
            TextColumn("{task.fields[numbers]}", markup=False),
            _Speed(),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=self.console,
        )
        total = int(trainer.max_epochs or 0) * int(trainer.num_training_batches)
        self._task = self._progress.add_task(
            "training",
            total=total,
            completed=trainer.global_step * trainer.accumulate_grad_batches,
            numbers="",
            batch_size=1,
        )
        self._read = 0.0
        self._progress.start()

    @override
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert self._progress is not None
        assert isinstance(pl_module, SpikingClassifier)
        fields: dict[str, Any] = {"batch_size": len(batch["label"]) * trainer.world_size}
        if time.perf_counter() - self._read > SECONDS_BETWEEN_READS:
            loss, accuracy = pl_module.train_meter.running()
            fields["numbers"] = f"loss {loss:.3f}  acc {100 * accuracy:.1f} %"
            self._read = time.perf_counter()
        self._progress.update(
            self._task, advance=1, description=f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}", **fields
        )

    @override
    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, SpikingClassifier)
        if self._progress is not None:
            line = epoch_line(pl_module.epoch_metrics, int(trainer.max_epochs or 0), self.console.width)
            self._progress.console.print(line, highlight=False)

    @override
    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._stop()

    @override
    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


class _Speed(ProgressColumn):
    """Samples per second, computed from the bar's batches per second."""

    @override
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed * task.fields['batch_size']:.0f} samples/s" if speed else "- samples/s")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
