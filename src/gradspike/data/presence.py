"""Reports missing files of a data set before torch is imported, which takes seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gradspike.data.options.base import DatasetConfig, FilesConfig
from gradspike.data.registry import DATASETS


def check_files(config: DatasetConfig, time_steps: int, data_dir: Path) -> None:
    """Raise UserError if the files of one of gradspike's data sets are missing, and no set prepared from them is there.

    Does nothing where they may be downloaded. Opens no files that exist.
    """
    if not isinstance(config, FilesConfig) or config.download or ":" in config.name:
        return
    from gradspike.data.files.files import MissingSourceError
    from gradspike.data.prepared.file_source import FileSource

    source: FileSource[Any] = DATASETS.build(FileSource, config, time_steps, data_dir)  # type: ignore[type-abstract]
    try:
        source.files()
    except MissingSourceError:
        source.load()  # opens the prepared set, or raises the error with all details
