"""The command `gradspike prepare`, and the contact sheet it draws."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import warnings
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from gradspike.cli.prepare import prepare
from gradspike.data import preview
from gradspike.data.options.events import DigitsEventsConfig
from gradspike.data.options.pictures import DigitsConfig, ImageAugmentConfig, ImageFolderConfig
from gradspike.data.preview import draw_preview
from gradspike.data.sets.image_folder import ImageFolder
from gradspike.data.source import Samples
from gradspike.errors import UserError
from helpers.command import GRADSPIKE, ROOT, execute, here
from helpers.data_samples import encoded, pack, pixels, write_class_folders
from helpers.limits import no_file_may_grow


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    write_class_folders(tmp_path / "files")
    return pack(tmp_path / "files", tmp_path / "pets.zip")


def words(pets: Path, *more: str) -> list[str]:
    return [
        "dataset=image_folder",
        f"data_dir={pets.parent}",
        f"dataset.source={pets}",
        "dataset.image_size=32",
        "dataset.classes=3",
        *more,
    ]


class Printed(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


def prepared(capsys: pytest.CaptureFixture[str], *words: str) -> Printed:
    return Printed(*here(["prepare", *words], capsys))


def test_a_set_is_prepared_summed_up_checked_and_drawn(pets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = prepared(capsys, *words(pets, "workers=1", "verify=true", f"preview={pets.parent / 'p.png'}"))
    assert result.returncode == 0, result.stderr
    (folder,) = (path for path in (pets.parent / "prepared").glob("image_folder-*") if "split" not in path.name)
    for line in (
        f"prepared   {folder}",
        "samples    train 9, val 3, test 6  of 3x32x32",
        "classes    3: ant, bee, cat",
        "verified   4 arrays",
        f"preview    {pets.parent / 'p.png'}",
    ):
        assert line in result.stdout
    with Image.open(pets.parent / "p.png") as picture:
        assert picture.width > 600
    again = prepared(capsys, *words(pets))
    assert again.returncode == 0
    assert "Preparing" not in again.stdout
    assert "left out" not in again.stdout


def test_bad_files_end_it_or_are_listed(pets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with zipfile.ZipFile(pets, "a") as file:
        file.writestr("train/ant/zz.png", b"words")
    refused = prepared(capsys, *words(pets))
    assert refused.returncode == 1
    assert "Traceback" not in refused.stderr
    assert f"{pets}/train/ant/zz.png: is not a PNG" in refused.stderr
    skipped = prepared(capsys, *words(pets, "dataset.on_bad_file=skip"))
    assert skipped.returncode == 0
    assert "left out   1 " in skipped.stdout
    assert f"  {pets}/train/ant/zz.png: is not a PNG" in skipped.stdout


def test_a_changed_byte_is_found_by_verify(pets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = ImageFolderConfig(source=str(pets), image_size=32, classes=3)
    ImageFolder(config, 4, pets.parent).load()
    inputs = next((pets.parent / "prepared").glob("image_folder-*/inputs.npy"))
    with inputs.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\0")
    result = prepared(capsys, *words(pets, "verify=true"))
    assert result.returncode == 1
    assert f"{inputs.parent} is damaged: inputs.npy" in result.stderr


def test_a_reader_that_goes_away_ends_it_silently(tmp_path: Path) -> None:
    """Close the pipe early, as `| head` does."""
    reading, writing = os.pipe()
    os.close(reading)
    run = [*GRADSPIKE, "prepare", "dataset=digits", f"data_dir={tmp_path}"]
    ended = subprocess.run(run, cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=120)
    os.close(writing)
    assert ended.stderr == ""
    assert ended.returncode == 128 + signal.SIGPIPE


@pytest.mark.parametrize(
    ("mistake", "answer"),
    [
        ("worker=2", r"unknown key 'worker'. Did you mean 'workers'\?"),
        ("workers=0", "workers=0: must be greater than or equal to 1"),
        ("verify=yess", "verify=yess"),
        ("preview=a.jpg", r"a\.jpg: the file must end in one of \.png"),
        ("preview=no/such/folder/a.png", "unknown folder 'no/such/folder'"),
        ("dataset=cifar1", "Did you mean 'cifar10'"),
        ("dataset.bach_size=2", "Did you mean 'dataset.batch_size'"),
        ("-m", "unknown flag '-m'"),
        ("dataset=image_folder", "must be given"),
        ("dataset=cifar10", "CIFAR-10 was not found"),
        ("dataset=tiny_imagenet", "cs231n.stanford.edu"),
    ],
)
def test_mistakes_are_answered(tmp_path: Path, mistake: str, answer: str) -> None:
    with pytest.raises(UserError) as error:
        prepare([f"data_dir={tmp_path}", mistake])
    assert re.search(answer, str(error.value))
    assert not list(tmp_path.iterdir())


def test_mistakes_and_help_need_nothing_heavy() -> None:
    code = (
        "import sys\nfrom gradspike.cli.reporting import reporting_errors\nfrom gradspike.cli.prepare import prepare\n"
        "try:\n    prepare(['--help'])\nexcept SystemExit:\n    reporting_errors(lambda: prepare(['dataset=cifar1']))\n"
        "print([name for name in ('torch', 'numpy', 'PIL', 'lightning', 'matplotlib') if name in sys.modules])"
    )
    result = execute(sys.executable, "-c", code)
    assert result.stdout.startswith("Prepare a data set once")
    assert result.stdout.endswith("[]\n")


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A part of 1,000 small images, then 500 slow enough to decode that a signal arrives in time."""
    archive = tmp_path_factory.mktemp("large") / "large.zip"
    small, large = (encoded(np.full((size, size, 3), 90, dtype=np.uint8), "JPEG") for size in (32, 1200))
    with zipfile.ZipFile(archive, "w") as file:
        for number in range(1500):
            split = "test" if number == 1499 else "train"
            file.writestr(f"{split}/a/{number:04d}.jpg", small if number < 1000 else large)
    return archive


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_preparation_goes_on(large: Path, tmp_path: Path, signum: int, code: int) -> None:
    run = [*GRADSPIKE, "prepare", "dataset=image_folder", f"dataset.source={large}"]
    run += [f"data_dir={tmp_path}", "dataset.classes=1", "dataset.image_size=32", "workers=1"]
    process = subprocess.Popen(run, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 240
    while not list(tmp_path.glob("prepared/.*.partial/parts/000000")) and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signum)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    assert "Traceback" not in errors
    if signum == signal.SIGINT:
        assert "the same command continues" in errors
        again = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, timeout=120)
        assert again.returncode == 0
        assert "Continuing the preparation" in again.stdout


# The contact sheet.


def read(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def contains(sheet: np.ndarray, cell: np.ndarray) -> bool:
    """Whether a larger image contains an image, pixel for pixel."""
    height, width = cell.shape[:2]
    corners = (sheet == cell[0, 0]).all(axis=2)[: -height + 1 or None, : -width + 1 or None]
    return any(
        (sheet[top : top + height, left : left + width] == cell).all() for top, left in np.argwhere(corners).tolist()
    )


def folder_samples(tmp_path: Path, classes: int = 3, **options: Any) -> tuple[ImageFolderConfig, Samples]:
    names = [f"class_{number:02d}" for number in range(classes)]
    write_class_folders(tmp_path / "files", classes=names, counts={"train": 3, "test": 1})
    config = ImageFolderConfig(source=str(tmp_path / "files"), image_size=32, classes=classes, **options)
    return config, ImageFolder(config, 4, tmp_path).load()


def test_a_sheet_shows_stored_pictures_and_what_the_network_gets(tmp_path: Path) -> None:
    flip = ImageAugmentConfig(flip=True)
    config, samples = folder_samples(tmp_path, augment=flip)
    with pytest.raises(UserError, match=r"preview=.*p\.png: cannot be written \(File too large\)"), no_file_may_grow():
        draw_preview(tmp_path / "p.png", config, samples, seed=1)
    draw_preview(tmp_path / "p.png", config, samples, seed=1)
    sheet = read(tmp_path / "p.png")
    flipped = 0
    for label in range(3):
        train = samples.indices("train")
        members = train[samples.labels[train] == label]
        for index in members:
            picture = np.asarray(samples.inputs[index]).transpose(1, 2, 0).repeat(2, 0).repeat(2, 1)
            assert contains(sheet, picture), "a stored picture is missing, or not enlarged by whole pixels"
            flipped += contains(sheet, picture[:, ::-1])
    assert flipped == 3, "the first picture of each class, mirrored in one of six epochs"


def test_another_seed_shows_other_augmentation(tmp_path: Path) -> None:
    config, samples = folder_samples(tmp_path)
    for seed in (1, 1, 2):
        draw_preview(tmp_path / f"{seed}.png", config, samples, seed)
    first, other = read(tmp_path / "1.png"), read(tmp_path / "2.png")
    assert first.shape == other.shape
    assert (first != other).any()
    assert sorted(path.suffix for path in tmp_path.iterdir() if path.is_file()) == [".png", ".png"], "half a file"


def test_letters_that_the_font_lacks_are_named_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    statistics = {"mean": (0.5,) * 3, "std": (1.0,) * 3, "class_names": ("好好", "é")}
    samples = Samples(np.zeros((4, 3, 8, 8), np.uint8), np.array([0, 0, 1, 1]), np.zeros(4, np.uint8), **statistics)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_preview(tmp_path / "p.png", ImageFolderConfig(image_size=8, classes=2), samples, seed=1)
    (record,) = caplog.records
    assert record.getMessage() == (
        f"preview={tmp_path / 'p.png'}: the font lacks these letters, which are drawn as boxes: 好"
    )


def test_many_classes_are_sampled_evenly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, samples = folder_samples(tmp_path, classes=5)
    shown: list[str] = []
    monkeypatch.setattr(preview, "MOST_CLASSES", 3)
    monkeypatch.setattr(preview, "_save", lambda _, rows, title, *__: shown.extend([title, *(r.name for r in rows)]))
    draw_preview(tmp_path / "p.png", config, samples, seed=0)
    assert shown == ["image_folder: 3 of 5 classes, training split, seed 0", "class_00", "class_02", "class_04"]


def test_events_are_shown_in_time_and_by_polarity(tmp_path: Path) -> None:
    frames = np.zeros((4, 6, 2, 24, 24), dtype=np.uint8)
    frames[:2, 1, 1, 3:9, 3:9] = 4  # ON in the second frame
    frames[:2, 4, 0, 12:20, 12:20] = 4  # OFF in the fifth
    labels = np.array([0, 0, 1, 1])
    samples = Samples(frames, labels, np.zeros(4, np.uint8), class_names=("moving", "silent_$x$_name"))
    draw_preview(tmp_path / "p.png", DigitsEventsConfig(), samples, seed=0)
    sheet = read(tmp_path / "p.png").astype(int)
    on, off = ((np.abs(sheet - colour).sum(axis=2) < 12) for colour in ((213, 94, 0), (0, 114, 178)))
    assert on.sum() % (36 * 4) == 0
    assert on.sum() >= 2 * 36 * 4
    assert off.sum() >= 2 * 64 * 4
    assert np.argwhere(on)[:, 1].min() < np.argwhere(off)[:, 1].min(), "time runs to the right"
    other = np.argwhere(on)
    assert other[:, 0].max() < sheet.shape[0] / 2 + 40, "the silent class is white"


def test_long_recordings_and_grey_pictures_are_drawn(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).poisson(0.1, (20, 25, 2, 24, 24)).astype(np.uint8)
    events = Samples(frames, np.arange(20) % 10, np.zeros(20, np.uint8))
    draw_preview(tmp_path / "events.png", DigitsEventsConfig(), events, seed=0)
    digits = np.stack([pixels(number, 8)[None, ..., 0] for number in range(20)])
    samples = Samples(digits, np.arange(20) % 10, np.zeros(20, np.uint8), (0.5,), (0.25,))
    draw_preview(tmp_path / "digits.png", DigitsConfig(), samples, seed=0)
    for name in ("events", "digits"):
        sheet = read(tmp_path / f"{name}.png")
        assert min(sheet.shape[:2]) > 400
        assert max(sheet.shape[:2]) < 3000
