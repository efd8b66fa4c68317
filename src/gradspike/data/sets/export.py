"""Exports simulated recordings to files with the names and layout of CIFAR10-DVS."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from gradspike.data.camera import loop_scenes
from gradspike.data.camera.camera import EventCamera
from gradspike.data.events.aedat2 import aedat2_bytes
from gradspike.data.events.recording import Recording
from gradspike.data.options.camera import CameraConfig
from gradspike.data.prepared.parts import Part, build_in_parts
from gradspike.data.sets.cifar10dvs_sim import Cifar10DvsSim, Scene, record_scenes
from gradspike.errors import UserError
from gradspike.exhausted import not_written

Format = Literal["aedat", "npz"]
_PART = 16


def export(source: Cifar10DvsSim, folder: Path, format: Format) -> int:
    """Write all recordings to folder/<class>/cifar10_<class>_<number>.<format>. Returns the number of recordings.

    aedat: AEDAT 2.0 with swapped axes, like the original files (the camera lay on its side). npz: arrays t (int64,
    microseconds), x, y (int16), p (bool). An interrupted export resumes where it stopped. Raises UserError if the
    folder contains anything else.
    """
    progress = folder / ".export"
    if folder.is_dir() and any(folder.iterdir()) and not progress.is_dir():
        raise UserError(f"export={folder}: is not empty. Name a new or an empty folder.")
    try:
        progress.mkdir(parents=True, exist_ok=True)
        scenes = source.scenes(source.files())
        for name in {scene.clip.entry.name.partition("/")[0] for scene in scenes}:
            (folder / name).mkdir(exist_ok=True)
        build_in_parts(
            progress,
            scenes,
            WriteRecordings(source.config.camera, folder, format),
            part_size=_PART,
            workers=source.prepare_workers,
            title=f"exporting {source.config.name}",
            on_bad_file="error",
        )
    except OSError as error:
        raise not_written(folder, error, named="export=") from error
    shutil.rmtree(progress)
    return len(scenes)


@dataclass(frozen=True)
class WriteRecordings:
    """Records scenes and writes one file for each; called by `build_in_parts`."""

    camera: CameraConfig
    folder: Path
    format: Format

    def __call__(self, scenes: Sequence[Scene]) -> Part:
        """Write the files. The returned part contains the number of events in each."""
        recordings = record_scenes(scenes, EventCamera(self.camera, loop_scenes.SENSOR, loop_scenes.SENSOR))
        for scene, recording in zip(scenes, recordings, strict=True):
            path = self.folder / f"{scene.clip.entry.name}.{self.format}"
            temporary = path.with_name(f".{path.name}.{os.getpid()}")
            temporary.write_bytes(_aedat(recording) if self.format == "aedat" else npz_bytes(recording))
            temporary.replace(path)
        return Part({"events": np.array([len(recording) for recording in recordings], dtype=np.int64)})


def npz_bytes(recording: Recording) -> bytes:
    """Encode a recording as a compressed .npz file with the arrays t, x, y, p."""
    file = io.BytesIO()
    np.savez_compressed(file, t=recording.t, x=recording.x, y=recording.y, p=recording.p)
    return file.getvalue()


def _aedat(recording: Recording) -> bytes:
    return aedat2_bytes(replace(recording, x=recording.y, y=recording.x))
