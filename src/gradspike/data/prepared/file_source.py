"""The base class of all data sets prepared from files: finds the files, opens or builds the prepared set."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from gradspike.data.files.bad_file import BadFile
from gradspike.data.files.files import Files, MissingSourceError
from gradspike.data.files.find import find_source, nearest_path
from gradspike.data.files.fingerprint import fingerprint, last_fingerprint
from gradspike.data.options.base import FilesConfig
from gradspike.data.prepared.cache import prepared
from gradspike.data.prepared.digests import DamagedError
from gradspike.data.prepared.origin import origin, recorded_paths, stand_in
from gradspike.data.prepared.parts import refuse_bad_files
from gradspike.data.prepared.stored import Prepared
from gradspike.data.source import Source
from gradspike.errors import ConfigError, UserError
from gradspike.shown import counted, expanded, listed, printable

log = logging.getLogger(__name__)

KINDS_SHOWN = 10

FilesConfigT = TypeVar("FilesConfigT", bound=FilesConfig)


class FileSource(Source[FilesConfigT]):
    """A data set of files that the user provides or downloads. Subclasses define where to find them."""

    what: ClassVar[str]
    """The data set's name for messages."""
    usual_names: ClassVar[tuple[str, ...]]
    """Names of folders and archives to look for in data_dir."""
    put: ClassVar[str]
    """What to put there and where to get it, for the message when nothing was found."""

    def files(self) -> Files:
        """The folder or archive, downloaded if missing and `dataset.download` is set. Raises UserError."""
        config = self.config
        find = partial(find_source, config.source, self.data_dir, self.usual_names, self.what, self.put)
        if config.download and config.source is None:
            try:
                return find()
            except MissingSourceError:
                self.download()
        return find()

    def places(self) -> list[Path]:
        """The possible paths of the files, whether or not they exist."""
        source = self.config.source
        if source is not None:
            return [expanded(source)]
        return [self.data_dir / name for name in self.usual_names]

    def download(self) -> None:
        """Download the official files into data_dir. Raises UserError."""
        raise UserError(f"{self.what} cannot be downloaded automatically. Download it yourself: {self.put}")

    def open_prepared(
        self, name: str, options: Mapping[str, Any], build: Callable[[Files, Path], Mapping[str, Any]]
    ) -> Prepared:
        """Open the set prepared from the files with these `options`, building it first if needed.

        `build(files, folder)` writes arrays and returns facts, including "source", "class_names" and "bad". If the
        files are missing, opens the set prepared from the same path.
        """
        try:
            files = self.files()
        except MissingSourceError as error:
            opened = self._without_files(name, options, error)
        else:
            key = {**options, "source": fingerprint(files, self.data_dir, refresh=self.refresh)}
            opened = prepared(self.data_dir, name, key, partial(self._recorded, build, files))
        refuse_bad_files([BadFile(*file) for file in opened.facts["bad"]], self.config.on_bad_file)
        self.check_classes(opened.facts["class_names"], opened.facts["source"])
        return opened

    def _recorded(
        self, build: Callable[[Files, Path], Mapping[str, Any]], files: Files, folder: Path
    ) -> Mapping[str, Any]:
        """The facts of `build`, with the origin of the files and the counts of files left out."""
        facts = build(files, folder)
        left_out = dict(Counter(files.ignored()) + Counter(facts.get("left_out", {})))
        if left_out:
            log.info("Left out, because they are not samples: %s", left_out_text(left_out))
        return {**facts, **origin(files.path, self.data_dir), "left_out": left_out}

    def _without_files(self, name: str, options: Mapping[str, Any], error: MissingSourceError) -> Prepared:
        asked = [origin(place, self.data_dir) for place in self.places()]
        fingerprints = [last_fingerprint(Path(of["path"]), self.data_dir) for of in asked]
        known = [fingerprint for fingerprint in fingerprints if fingerprint is not None]
        try:
            opened = stand_in(self.data_dir, name, options, asked, known)
        except DamagedError as damage:
            raise MissingSourceError(
                f"{damage}, and its files are missing: {error}\nPut them back and prepare the set again: "
                f"{self.prepare_command()}"
            ) from error
        if opened is not None:
            log.info(
                "The original files of '%s' are missing; using the data set prepared from them: %s", name, opened.folder
            )
            return opened
        lines = [str(error)]
        if self.config.source is not None:
            lines[0] += nearest_path(self.places()[0])
        for path, folders in recorded_paths(self.data_dir, name).items():
            lines.append(f"  Prepared from {path}: {listed(folders)}")
        if len(lines) > 1:
            lines.append("  To use one without its original files, add its options and dataset.source=<its path>.")
        raise MissingSourceError("\n".join(lines)) from error

    def check_classes(self, class_names: Sequence[str], shown: str) -> None:
        """Raise ConfigError unless the files have `dataset.classes` classes. shown: their path for messages."""
        if len(class_names) != self.config.classes:
            raise ConfigError(
                f"{shown} has {counted(len(class_names), 'class', 'classes')} ({listed(class_names)}); set "
                f"dataset.classes={len(class_names)} (it is {self.config.classes})."
            )


def left_out_text(counts: Mapping[str, int]) -> str:
    """Text for the files and folders that are not samples, most frequent first: `.DS_Store (3), @eaDir (2)`."""
    ordered = sorted(counts, key=lambda name: (-counts[name], name))
    rest = sum(counts[name] for name in ordered[KINDS_SHOWN:])
    return ", ".join(f"{printable(name)} ({counts[name]:,})" for name in ordered[:KINDS_SHOWN]) + (
        f" and {counted(rest, 'other')}" if rest else ""
    )
