"""cifar10dvs_sim: CIFAR-10 images recorded by the simulated event camera, with the motion used for CIFAR10-DVS.

A substitute for CIFAR10-DVS in any size, with the same sensor size, path, classes, file names, split and options. The
events come from a camera model instead of a DVS128, so accuracy says nothing about CIFAR10-DVS.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from typing_extensions import override

from gradspike.data.camera import camera as event_camera
from gradspike.data.camera import loop_scenes
from gradspike.data.camera.camera import EventCamera
from gradspike.data.events.by_number import ByNumber
from gradspike.data.events.clips import Clip, ClipFrames
from gradspike.data.events.listing import Listing, describe_samples
from gradspike.data.events.recording import Recording
from gradspike.data.events.table import Events
from gradspike.data.files.containers import Entry
from gradspike.data.files.files import Files
from gradspike.data.options.base import DatasetConfig
from gradspike.data.options.camera import CameraConfig
from gradspike.data.options.events import Cifar10DvsSimConfig
from gradspike.data.prepared.parts import Part, build_in_parts
from gradspike.data.sets.cifar10dvs import CLASS_NAMES
from gradspike.data.source import SPLITS
from gradspike.errors import ConfigError
from gradspike.shown import counted

log = logging.getLogger(__name__)

VERSION = 1
_PART = 16
_IDENTITIES = 10_000


@dataclass(frozen=True)
class Scene:
    """An image to record: its clip, its pixels (bytes of uint8 [3, 32, 32]) and the seed of its noise."""

    clip: Clip
    picture: bytes
    identity: int


@dataclass(frozen=True)
class SimulatedFrames:
    """Records scenes and turns them into frames; called by `build_in_parts`."""

    camera: CameraConfig
    frames: ClipFrames

    def __call__(self, scenes: Sequence[Scene]) -> Part:
        """Record scenes and turn them into samples."""
        recordings = record_scenes(scenes, EventCamera(self.camera, loop_scenes.SENSOR, loop_scenes.SENSOR))
        return self.frames.of_recordings([scene.clip for scene in scenes], recordings)


def record_scenes(scenes: Sequence[Scene], camera: EventCamera) -> list[Recording]:
    """Record the scenes moving along the loops. The events of a scene do not depend on the other scenes."""
    pictures = np.stack([np.frombuffer(scene.picture, dtype=np.uint8).reshape(3, 32, 32) for scene in scenes])
    identities = np.array([scene.identity for scene in scenes], dtype=np.int64)
    events: Events = camera.record(loop_scenes.scenes(pictures), loop_scenes.sample_times(), identities)
    parts = [slice(start, stop) for start, stop in zip(events.offsets[:-1], events.offsets[1:], strict=True)]
    return [Recording(events.t[of].astype(np.int64), events.x[of], events.y[of], events.p[of]) for of in parts]


class Cifar10DvsSim(ByNumber[Cifar10DvsSimConfig]):
    """Simulated recordings `cifar10_<class>_<number>` of the first images of each class."""

    Config: ClassVar[type[DatasetConfig]] = Cifar10DvsSimConfig

    def __init__(self, config: Cifar10DvsSimConfig, time_steps: int, data_dir: Path) -> None:
        from gradspike.data.options.pictures import Cifar10Config
        from gradspike.data.sets.cifar import Cifar

        super().__init__(config, time_steps, data_dir)
        options = Cifar10Config(source=config.source, download=config.download, on_bad_file=config.on_bad_file)
        self.pictures = Cifar(options, 1, data_dir)

    @property
    @override
    def sensor(self) -> tuple[int, int]:
        return loop_scenes.SENSOR, loop_scenes.SENSOR

    @override
    def files(self) -> Files:
        """The files of CIFAR-10. Raises UserError."""
        return self.pictures.files()

    @override
    def places(self) -> list[Path]:
        return self.pictures.places()

    @override
    def key_of_files(self) -> dict[str, Any]:
        return {
            "sim_version": VERSION,
            "camera_version": event_camera.VERSION,
            "camera": self.config.camera.model_dump(),
            "per_class": self.config.per_class,
        }

    @override
    def list_recordings(self, places: Sequence[Files]) -> Listing:
        """The recordings to simulate, sorted by name."""
        return Listing(tuple(scene.clip for scene in self.scenes(places[0])), CLASS_NAMES)

    def scenes(self, files: Files) -> list[Scene]:
        """The first `per_class` images of each class, training images first. Raises ConfigError."""
        self.pictures.prepare_workers = self.prepare_workers
        samples = self.pictures.checked()
        from_test = samples.splits == SPLITS.index("test")
        scenes = []
        for label, name in enumerate(CLASS_NAMES):
            members = np.flatnonzero(samples.labels == label)
            members = members[np.argsort(from_test[members], kind="stable")][: self.config.per_class]
            if len(members) < self.config.per_class:
                raise ConfigError(
                    f"dataset.per_class={self.config.per_class}: {files.shown()} has "
                    f"{counted(len(members), 'image')} of class {name}. Set dataset.per_class={len(members)} or less."
                )
            for number, member in enumerate(members.tolist()):
                entry = Entry(f"{name}/cifar10_{name}_{number}", 0, 0)
                clip = Clip(files, entry, label, "train", group=0, rank=number)
                picture = np.asarray(samples.inputs[member]).tobytes()
                scenes.append(Scene(clip, picture, label * _IDENTITIES + number))
        scenes.sort(key=lambda scene: scene.clip.entry.name)
        return [
            replace(scene, clip=replace(scene.clip, group=place, number=place)) for place, scene in enumerate(scenes)
        ]

    @override
    def _build(self, files: Files, folder: Path) -> dict[str, Any]:
        config = self.config
        scenes = self.scenes(files)
        bad = build_in_parts(
            folder,
            scenes,
            SimulatedFrames(config.camera, self.work()),
            part_size=_PART,
            workers=self.prepare_workers,
            title=f"recording {config.name}",
            on_bad_file=config.on_bad_file,
            bytes_per_item=0 if config.window_ms else 2 * self.time_steps * config.image_size**2,
        )
        return {
            **describe_samples(folder, [scene.clip for scene in scenes], config.window_ms is not None),
            "source": files.shown(),
            "class_names": list(CLASS_NAMES),
            "bad": [[file.path, file.problem] for file in bad],
        }
