"""TensorBoard event files in the run folder."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch.loggers import TensorBoardLogger
from typing_extensions import override

from gradspike.errors import UserError
from gradspike.loggers.base import RunLogger


class TensorBoard(TensorBoardLogger, RunLogger):
    """Lightning's TensorBoard logger for a run. Raises UserError if the package tensorboard is missing."""

    def __init__(self, folder: Path) -> None:
        self._events = folder / "tensorboard"
        try:
            super().__init__(save_dir=folder, name="tensorboard", version="")
        except ModuleNotFoundError as error:
            raise UserError(
                "logger=tensorboard needs the package tensorboard: pip install 'gradspike[tensorboard]'"
            ) from error

    @override
    def start_again(self) -> None:
        for file in self._events.glob("events.out.tfevents.*"):
            file.unlink()
