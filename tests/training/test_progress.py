"""The words of a training's progress."""

from __future__ import annotations

import pytest
from rich.progress import Progress

from gradspike.training.callbacks.progress import _Speed, epoch_line

METRICS = {
    "epoch": 4,
    "train/loss": 0.128,
    "train/accuracy": 0.959,
    "val/loss": 0.21,
    "val/accuracy": 0.9333,
    "val/firing_rate": 0.144,
}
PACE = ("174 samples/s", "2:48 left")


def test_the_speed_counts_samples_which_may_be_recordings() -> None:
    bar = Progress(_Speed())
    bar.add_task("", total=1, batch_size=1)
    assert _Speed().render(bar.tasks[0]).plain == "- samples/s"


@pytest.mark.parametrize("epochs", [30, 10_000])
def test_the_line_of_an_epoch_fits_the_width_and_loses_nothing(epochs: int) -> None:
    whole = epoch_line(METRICS, epochs, 200, PACE)
    assert "\n" not in whole
    narrow = epoch_line(METRICS, epochs, 80, PACE).splitlines()
    assert len(narrow) == 2
    assert max(map(len, narrow)) <= 80
    assert "  ".join(line.strip() for line in narrow) == whole
