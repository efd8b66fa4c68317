"""Image files: exact decoding, every mode and container, bad files, and clear errors."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gradspike.data.files.bad_file import BadFile
from gradspike.data.files.files import Files
from gradspike.data.pictures.decode import decode, fit
from gradspike.data.pictures.encoded_source import encode
from gradspike.data.pictures.listing import converted, list_class_folders
from gradspike.data.prepared.stored import open_folder
from gradspike.data.source import SPLITS
from gradspike.errors import ConfigError, UserError
from helpers.data_samples import encoded, pack, pixels, write_cifar_pickles, write_class_folders
from helpers.limits import no_file_can_be_opened
from helpers.pictures import load_cifar, load_folder, same_pictures


def file_of(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def test_lossless_files_decode_to_what_was_written() -> None:
    array = pixels(1)
    for kind, options in (("PNG", {}), ("WEBP", {"lossless": True, "exact": True})):
        assert (np.asarray(decode(encoded(array, kind, **options))) == array).all()


def test_every_mode_becomes_rgb() -> None:
    array = pixels(2)
    grey = array[..., 0]
    three = np.repeat(grey[..., None], 3, axis=2)
    assert (np.asarray(decode(file_of(Image.fromarray(grey)))) == three).all()
    wide = grey.astype(np.uint16) << 8 | array[..., 1]
    assert (np.asarray(decode(file_of(Image.fromarray(wide)))) == three).all(), "16 bits: the upper eight"
    alpha = np.dstack([array, array[..., :1]])
    assert (np.asarray(decode(file_of(Image.fromarray(alpha)))) == array).all(), "RGBA: alpha is dropped"
    with_alpha = Image.fromarray(np.dstack([grey, array[..., 1]]))
    assert (np.asarray(decode(file_of(with_alpha))) == three).all()
    palette = Image.fromarray(array).quantize(16)
    looked_up = np.array(palette.getpalette(), dtype=np.uint8).reshape(-1, 3)[np.asarray(palette)]
    assert (np.asarray(decode(file_of(palette, transparency=bytes(16)))) == looked_up).all()
    black_and_white = Image.fromarray(grey > 127)
    assert (np.asarray(decode(file_of(black_and_white))) == np.where(three > 127, 255, 0)).all()
    smooth = Image.fromarray(array).resize((4, 4)).resize((32, 32))
    cmyk = np.asarray(decode(file_of(smooth.convert("CMYK"), "JPEG", quality=95))).astype(int)
    assert np.abs(cmyk - np.asarray(smooth)).mean() < 4, "CMYK: colours are kept, inverted ones would be far off"


NO_PICTURES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty"),
    "text": (b"these are words, not pixels", "is not a PNG, JPEG or WebP"),
    "gif": (file_of(Image.fromarray(pixels(0)), "GIF"), "is not a PNG, JPEG or WebP"),
    "cut png": (encoded(pixels(0))[:1000], "cannot be decoded"),
    "cut jpeg": (encoded(pixels(0), "JPEG")[:700], "cannot be decoded"),
    "cut webp": (encoded(pixels(0), "WEBP")[:300], r"cannot be decoded|is not a"),
    "head only": (encoded(pixels(0))[:20], r"cannot be decoded|is not a"),
    "broken png": (encoded(pixels(0))[:200] + b"zzzz" + encoded(pixels(0))[204:], "cannot be decoded"),
}


@pytest.mark.parametrize("name", NO_PICTURES)
def test_files_that_are_no_image_are_refused_with_the_reason(name: str) -> None:
    content, reason = NO_PICTURES[name]
    with pytest.raises(ValueError, match=reason):
        decode(content)


@pytest.mark.parametrize("shape", [(40, 60), (61, 37), (32, 32), (50, 50), (20, 33), (33, 20)])
def test_fit_is_torchvisions_resize_and_centre_crop(shape: tuple[int, int]) -> None:
    from torchvision.transforms import CenterCrop, Compose, Resize

    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8))
    expected = Compose([Resize(32), CenterCrop(32)])(picture)
    assert (np.asarray(fit(picture, 32)) == np.asarray(expected)).all()


def test_a_strip_that_would_take_gigabytes_is_refused() -> None:
    strip = Image.new("RGB", (60_000, 1))
    with pytest.raises(ValueError, match="has 60000x1 pixels: too narrow to scale its shorter side to 224"):
        fit(strip, 224)
    with pytest.raises(ValueError, match="too narrow"):
        encode(encoded(np.asarray(strip)), 256)
    assert fit(Image.new("RGB", (300, 2)), 16).size == (16, 16)


@pytest.mark.parametrize("ending", ["", ".zip", ".tar", ".tgz"])
def test_class_folders_in_any_container_give_the_written_pixels(tmp_path: Path, ending: str) -> None:
    written = write_class_folders(tmp_path / "pets")
    source = pack(tmp_path / "pets", tmp_path / f"a{ending}", "top/") if ending else tmp_path / "pets"
    samples = load_folder(tmp_path, source)
    assert same_pictures(samples, written)
    assert samples.class_names == ("ant", "bee", "cat")
    for name, label, split in zip(samples.names, samples.labels, samples.splits, strict=True):
        assert name.split("/")[1] == samples.class_names[label]
        assert SPLITS[split] in ({"train", "val"} if name.startswith("train") else {"test"})
    assert [len(samples.indices(split)) for split in SPLITS] == [9, 3, 6]
    again = load_folder(tmp_path, source)
    assert isinstance(again.inputs, np.memmap)
    assert not list((tmp_path / "prepared").glob(".*.partial"))


def test_statistics_are_those_of_the_training_split(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "pets")
    samples = load_folder(tmp_path, tmp_path / "pets")
    train = np.asarray(samples.inputs)[samples.indices("train")].astype(np.float64) / 255
    np.testing.assert_allclose(samples.mean, train.mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(samples.std, train.std(axis=(0, 2, 3)), rtol=1e-12)


def test_other_sizes_are_brought_to_the_one_asked_for(tmp_path: Path) -> None:
    written = write_class_folders(tmp_path / "pets", size=48)
    samples = load_folder(tmp_path, tmp_path / "pets", size=24)
    expected = {name: np.asarray(fit(Image.fromarray(array), 24)) for name, array in written.items()}
    assert same_pictures(samples, expected)


def test_splits_of_the_folder_are_used_as_they_are(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "pets", counts={"train": 4, "val": 2, "test": 1})
    samples = load_folder(tmp_path, tmp_path / "pets", val_fraction=0.5)
    assert [len(samples.indices(split)) for split in SPLITS] == [12, 6, 3]


def test_val_without_test_is_the_test_split(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_class_folders(tmp_path / "pets", counts={"train": 4, "val": 2})
    with caplog.at_level("INFO"):
        samples = load_folder(tmp_path, tmp_path / "pets")
    assert [len(samples.indices(split)) for split in SPLITS] == [9, 3, 6]
    assert "val folder is used as the test split" in caplog.text


BAD_PICTURES: dict[str, tuple[str, bytes, str]] = {
    "empty": ("train/ant/x.png", b"", "is empty"),
    "cut off": ("train/bee/x.png", encoded(pixels(0))[:1000], "cannot be decoded"),
    "of another size": ("test/ant/x.png", encoded(pixels(0, 33)), "has 33x33 pixels instead of 32x32"),
    "no picture inside": ("test/bee/x.jpg", b"words", "is not a PNG, JPEG or WebP"),
    "no picture by name": ("train/cat/x.gif", b"words", "has none of the extensions"),
    "in no class": ("train/x.png", encoded(pixels(0)), "is not in a class folder"),
}


@pytest.mark.parametrize("kind", BAD_PICTURES)
def test_a_bad_file_is_refused_or_skipped_by_its_name(tmp_path: Path, kind: str) -> None:
    name, content, reason = BAD_PICTURES[kind]
    written = write_class_folders(tmp_path / "pets")
    (tmp_path / "pets" / name).write_bytes(content)
    with pytest.raises(UserError, match=reason) as error:
        load_cifar(tmp_path, tmp_path / "pets")
    assert str(tmp_path / "pets" / name) in str(error.value)
    assert "on_bad_file=skip" in str(error.value)
    samples = load_cifar(tmp_path, tmp_path / "pets", on_bad_file="skip")
    assert same_pictures(samples, written)
    facts = open_folder(Path(samples.labels.filename).parent).facts  # type: ignore[attr-defined]
    assert [path for path, _ in facts["bad"]] == [str(tmp_path / "pets" / name)]
    with pytest.raises(UserError, match=reason):  # what was prepared with skip is not used silently either
        load_cifar(tmp_path, tmp_path / "pets")


def test_all_bad_files_are_named_at_once(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "pets")
    for name, content, _ in list(BAD_PICTURES.values())[:4]:
        path = tmp_path / "pets" / name
        path.with_name(f"bad{path.name}").write_bytes(content)
    with pytest.raises(UserError, match="4 unusable files") as error:
        load_cifar(tmp_path, tmp_path / "pets")
    assert str(error.value).count("/bad") == 4


def test_the_number_of_classes_must_be_right(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "pets")
    with pytest.raises(ConfigError, match=r"pets has 3 classes \(ant, bee, cat\); set dataset\.classes=3"):
        load_folder(tmp_path, tmp_path / "pets", classes=5)
    load_folder(tmp_path, tmp_path / "pets")
    with pytest.raises(ConfigError, match="3 classes"):  # an opened set is checked as well
        load_folder(tmp_path, tmp_path / "pets", classes=5)
    write_cifar_pickles(tmp_path / "pickles")
    with pytest.raises(ConfigError, match=r"3 classes \(class0"):
        load_cifar(tmp_path, tmp_path / "pickles", classes=10)


def test_a_picture_that_this_process_cannot_read_is_not_bad(tmp_path: Path) -> None:
    """With dataset.on_bad_file=skip, the set would lose it for ever."""
    write_class_folders(tmp_path / "pets")
    listing = list_class_folders(Files.open(tmp_path / "pets"))
    bad: list[BadFile] = []
    with pytest.raises(OSError, match="Too many open files"), no_file_can_be_opened():
        list(converted(listing.items, listing.files, len, bad))
    assert not bad
    assert len(list(converted(listing.items, listing.files, len, bad))) == len(listing.items)


def test_classes_that_the_splits_do_not_share(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "pets")
    shutil.move(tmp_path / "pets" / "test" / "ant", tmp_path / "ant")
    with pytest.raises(UserError, match=r"pets/test: has no images of class ant"):
        load_folder(tmp_path, tmp_path / "pets")
    samples = load_folder(tmp_path, tmp_path / "pets", on_bad_file="skip")
    assert np.unique(samples.labels[samples.indices("test")]).tolist() == [1, 2]
    shutil.move(tmp_path / "ant", tmp_path / "pets" / "test" / "dog")
    with pytest.raises(UserError, match=r"test has classes that train does not have: dog\."):
        load_folder(tmp_path, tmp_path / "pets", on_bad_file="skip")
    for number in range(12):
        shutil.copytree(tmp_path / "pets" / "test" / "dog", tmp_path / "pets" / "test" / f"dog{number:02}")
    with pytest.raises(UserError, match=r"does not have: dog, dog00, .*, dog08 and 3 more\. Remove"):
        load_folder(tmp_path, tmp_path / "pets", on_bad_file="skip")


def test_a_class_whose_training_pictures_are_all_bad(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "pets")
    for picture in (tmp_path / "pets" / "train" / "bee").iterdir():
        picture.write_bytes(b"")
    with pytest.raises(UserError, match="no usable training image of class bee"):
        load_folder(tmp_path, tmp_path / "pets", on_bad_file="skip")


@pytest.mark.parametrize("missing", ["train", "test"])
def test_a_split_that_is_not_there(tmp_path: Path, missing: str) -> None:
    write_class_folders(tmp_path / "pets")
    shutil.rmtree(tmp_path / "pets" / missing)
    with pytest.raises(UserError, match=rf"no images in {missing}/<class>/.*Expected.*Found"):
        load_folder(tmp_path, tmp_path / "pets")
