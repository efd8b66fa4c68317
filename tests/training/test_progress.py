"""The words of a training's progress."""

from __future__ import annotations

from rich.progress import Progress

from gradspike.training.callbacks.progress import _Speed


def test_the_speed_counts_samples_which_may_be_recordings() -> None:
    bar = Progress(_Speed())
    bar.add_task("", total=1, batch_size=1)
    assert _Speed().render(bar.tasks[0]).plain == "- samples/s"
