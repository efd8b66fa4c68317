"""cifar10dvs_sim: exact images on an exact path, reproducible events, exported files that read back unchanged."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gradspike.data.camera import loop_scenes
from gradspike.data.camera.camera import EventCamera
from gradspike.data.events.clips import Clip
from gradspike.data.files.containers import Entry
from gradspike.data.files.files import Files
from gradspike.data.options.camera import CameraConfig
from gradspike.data.sets.cifar10dvs import Cifar10Dvs
from gradspike.data.sets.cifar10dvs_sim import Cifar10DvsSim, Scene, record_scenes
from gradspike.data.sets.export import export
from gradspike.data.source import Samples
from gradspike.errors import ConfigError, UserError
from helpers.command import command
from helpers.data_samples import pixels
from helpers.event_samples import write_squares

CHECKSUM = "222d3469d6041a2a5dd767b3d62f7f77a2db124363d9938c1b6b506054da51b2"
"""SHA-256 of the events of two images: a change needs a new VERSION."""


def blocks(number: int) -> np.ndarray:
    """An image [3, 32, 32] of blocks."""
    return np.kron(pixels(number, 8).transpose(2, 0, 1), np.ones((4, 4), dtype=np.uint8))


def scene(number: int, identity: int) -> Scene:
    clip = Clip(Files(Path("none"), "folder"), Entry(str(number), 0, 0), 0, "train", group=0)
    return Scene(clip, np.ascontiguousarray(blocks(number)).tobytes(), identity)


def simulator(folder: Path, data_dir: Path, workers: int = 1, **options: Any) -> Cifar10DvsSim:
    config = Cifar10DvsSim.Config(name="cifar10dvs_sim", source=str(folder), image_size=16, **options)  # type: ignore[arg-type]
    made = Cifar10DvsSim(config, 4, data_dir)  # type: ignore[arg-type]
    made.prepare_workers = workers
    return made


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures") / "files"
    write_squares(folder)
    return folder


@pytest.fixture(scope="module")
def simulated(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Cifar10DvsSim, Samples]:
    made = simulator(pictures, tmp_path_factory.mktemp("data"), per_class=2, folds=2)
    return made, made.load()


def test_the_path_is_six_closed_loops_of_diagonals() -> None:
    path, times = loop_scenes.path(), loop_scenes.sample_times()
    assert path.shape == (241, 2)
    assert times[-1] == 1_200_000
    assert (path[0] == path[40]).all()
    assert (path[:40] == path[200:240]).all()
    assert (np.abs(np.diff(path, axis=0)) == 1).all(), "one pixel along each axis, so 45 degrees"
    assert np.abs(path).max() == 10


def test_the_picture_on_the_monitor_is_a_bicubic_enlargement() -> None:
    """Pillow's own bicubic filter of the grey image, to within its rounding to 8 bits."""
    picture = blocks(3) // 3 + 100  # away from black, where 16 bits of light are few for a level
    grey = picture.astype(np.float64).transpose(1, 2, 0) @ [0.299, 0.587, 0.114]
    theirs = np.asarray(Image.fromarray(grey.astype(np.float32)).resize((512, 512), Image.Resampling.BICUBIC))
    light = loop_scenes._on_monitor(picture[None])[0]
    inside = slice(32, -32)  # Pillow leaves out what lies beyond the edge, here the edge is continued
    ours = (light[inside, inside] / 65535) ** (1 / 2.2) * 255
    np.testing.assert_allclose(ours, np.clip(theirs, 0, 255)[inside, inside], atol=0.6)


def test_the_sensor_sees_means_of_the_moved_picture() -> None:
    picture = blocks(4)
    light = loop_scenes._on_monitor(picture[None])[0].astype(np.int64)
    for place, seen in zip(loop_scenes.path().tolist(), loop_scenes.scenes(picture[None]), strict=True):
        x, y = place
        if (x, y) not in ((-10, 0), (0, -10), (3, 7)):
            continue
        rows, columns = np.arange(512) - y, np.arange(512) - x
        cut = light[np.clip(rows, 0, 511)][:, np.clip(columns, 0, 511)].reshape(128, 4, 128, 4)
        assert (seen[0] == cut.sum((1, 3)) // 16).all()


def test_the_events_are_the_ones_they_were() -> None:
    together = record_scenes([scene(1, 7), scene(2, 8)], EventCamera(CameraConfig(), 128, 128))
    alone = record_scenes([scene(2, 8)], EventCamera(CameraConfig(), 128, 128))
    digest = hashlib.sha256()
    for recording in together:
        recording.check(128, 128)
        for column in (recording.t, recording.x, recording.y, recording.p):
            digest.update(np.ascontiguousarray(column).tobytes())
    assert (alone[0].t == together[1].t).all()
    assert (alone[0].x == together[1].x).all()
    assert 10_000 < len(alone[0]) < 1_000_000
    assert digest.hexdigest() == CHECKSUM


@pytest.mark.parametrize("form", ["aedat", "npz"])
def test_exported_recordings_read_back_as_the_same_frames(
    simulated: tuple[Cifar10DvsSim, Samples], form: Any, tmp_path: Path
) -> None:
    made, samples = simulated
    assert export(made, tmp_path / "out", form) == 20
    assert sorted(path.name for path in (tmp_path / "out" / "ship").iterdir()) == [
        f"cifar10_ship_0.{form}",
        f"cifar10_ship_1.{form}",
    ]
    config = Cifar10Dvs.Config(name="cifar10dvs", source=str(tmp_path / "out"), image_size=16, folds=2)  # type: ignore[arg-type]
    reader = Cifar10Dvs(config, 4, tmp_path)  # type: ignore[arg-type]
    reader.prepare_workers = 1
    read = reader.load()
    assert (np.asarray(read.inputs) == np.asarray(samples.inputs)).all()
    assert (read.splits == samples.splits).all()
    assert [name.removesuffix(f".{form}") for name in read.names] == list(samples.names)
    with pytest.raises(UserError, match="is not empty"):
        export(made, tmp_path / "out", form)


def test_a_larger_set_holds_the_smaller_one(
    simulated: tuple[Cifar10DvsSim, Samples], pictures: Path, tmp_path: Path
) -> None:
    """Also with more processes; test images come after the training ones."""
    _, small = simulated
    large = simulator(pictures, tmp_path, workers=2, per_class=3, folds=3).load()
    assert len(large.names) == 30
    place = {name: index for index, name in enumerate(large.names)}
    for index, name in enumerate(small.names):
        assert (small.inputs[index] == large.inputs[place[name]]).all()
    with pytest.raises(ConfigError, match=r"has 3 images of class airplane. Set dataset.per_class=3 or less"):
        simulator(pictures, tmp_path, per_class=4).load()


def test_another_camera_is_another_set(simulated: tuple[Cifar10DvsSim, Samples], pictures: Path) -> None:
    made, _ = simulated
    other = simulator(pictures, made.data_dir, per_class=2, camera={"threshold": 0.5})
    assert other.key_of_files() != made.key_of_files()


def test_export_is_reached_from_the_command_line(pictures: Path, tmp_path: Path) -> None:
    options = [f"dataset.source={pictures}", "dataset.per_class=1", f"data_dir={tmp_path}", "workers=1"]
    options += [f"export={tmp_path / 'out'}", "export_format=npz"]
    result = command("prepare", "dataset=cifar10dvs_sim", *options)
    assert result.returncode == 0, result.stderr
    assert f"exported   10 recordings to {tmp_path / 'out'}" in result.stdout
    assert (tmp_path / "out/frog/cifar10_frog_0.npz").is_file()
    refused = command("prepare", "dataset=digits", f"data_dir={tmp_path}", f"export={tmp_path / 'other'}")
    assert refused.returncode == 2
    assert "export is only for dataset=cifar10dvs_sim" in refused.stderr.replace(f"={tmp_path / 'other'}:", "")
