"""What every data set that is read from files has in common: where they lie, and how many classes they hold."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import ClassVar, TypeVar

from gradspike.data.files.files import Files, MissingSourceError, find_source
from gradspike.data.options.base import FilesConfig
from gradspike.data.source import Source
from gradspike.errors import ConfigError, UserError

FilesConfigT = TypeVar("FilesConfigT", bound=FilesConfig)


class FileSource(Source[FilesConfigT]):
    """A data set of files that somebody brings or downloads. A subclass says where they lie."""

    what: ClassVar[str]
    """The data set's name for messages."""
    usual_names: ClassVar[tuple[str, ...]]
    """Folders and archives that are looked for in data_dir."""
    put: ClassVar[str]
    """What to put there and where it is from, for the message that nothing was found."""

    def files(self) -> Files:
        """The folder or archive, downloaded first where that was asked for. Raises UserError."""
        config = self.config
        find = partial(find_source, config.source, self.data_dir, self.usual_names, self.what, self.put)
        if config.download and config.source is None:
            try:
                return find()
            except MissingSourceError:
                self.download()
        return find()

    def download(self) -> None:
        """Fetch the official files into data_dir. Raises UserError."""
        raise UserError(f"{self.what} cannot be downloaded by a program. Put there: {self.put}")

    def check_classes(self, class_names: Sequence[str], shown: str) -> None:
        """Raise ConfigError unless the configuration has as many classes as the files, `shown` to the user."""
        if len(class_names) != self.config.classes:
            some = ", ".join(class_names[:5]) + (", ..." if len(class_names) > 5 else "")
            raise ConfigError(
                f"{shown} has {len(class_names)} classes ({some}); set dataset.classes={len(class_names)} "
                f"(it is {self.config.classes})."
            )
