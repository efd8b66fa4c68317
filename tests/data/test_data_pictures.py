"""Image files: exact decoding, every mode and layout, and clear errors."""

from __future__ import annotations

import io
import os
import pickle
import shutil
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gradspike.data.files.bad_file import BadFile
from gradspike.data.files.files import Files
from gradspike.data.files.safe_pickle import load_pickle
from gradspike.data.options.pictures import Cifar10Config, Cifar100Config, ImageFolderConfig, TinyImageNetConfig
from gradspike.data.pictures import source as picture_source
from gradspike.data.pictures.decode import decode, fit
from gradspike.data.pictures.encoded_source import encode
from gradspike.data.pictures.listing import converted, list_class_folders
from gradspike.data.prepared.stored import open_folder
from gradspike.data.sets.cifar import Cifar
from gradspike.data.sets.image_folder import ImageFolder
from gradspike.data.sets.tiny_imagenet import TinyImageNet
from gradspike.data.source import SPLITS, Samples, hold_out
from gradspike.errors import ConfigError, UserError
from helpers.data_samples import encoded, pack, pixels, write_cifar_pickles, write_class_folders, write_tiny_imagenet
from helpers.limits import no_file_can_be_opened


def load_folder(data_dir: Path, source: Path, size: int = 32, classes: int = 3, **options: Any) -> Samples:
    config = ImageFolderConfig(source=str(source), image_size=size, classes=classes, **options)
    return ImageFolder(config, 4, data_dir).load()


def load_cifar(data_dir: Path, source: Path | None, classes: int = 3, **options: Any) -> Samples:
    config = Cifar10Config(source=None if source is None else str(source), classes=classes, **options)
    return load_alone(Cifar(config, 4, data_dir))


def load_alone(source: Cifar) -> Samples:
    """Without starting a process for each of the pickles, which hold four images."""
    source.prepare_workers = 1
    return source.load()


def load_tiny(data_dir: Path, source: Path, **options: Any) -> Samples:
    return TinyImageNet(TinyImageNetConfig(source=str(source), classes=3, **options), 4, data_dir).load()


def by_name(samples: Samples) -> dict[str, np.ndarray]:
    return dict(zip(samples.names, np.asarray(samples.inputs).transpose(0, 2, 3, 1), strict=True))


def same_pictures(samples: Samples, written: dict[str, np.ndarray]) -> bool:
    found = by_name(samples)
    return found.keys() == written.keys() and all((found[name] == written[name]).all() for name in written)


def file_of(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


# Decoding.


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


# Layouts.


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


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
@pytest.mark.parametrize("packed", [False, True])
def test_cifars_pickles_give_the_written_pixels(tmp_path: Path, name: str, packed: bool) -> None:
    """Found in data_dir under their official names."""
    official = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}[name]
    written = write_cifar_pickles(tmp_path / official, name)
    if packed:
        archive = official.replace("-batches-py", "-python") + ".tar.gz"
        pack(tmp_path / official, tmp_path / archive, f"{official}/")
        shutil.rmtree(tmp_path / official)
    schema = {"cifar10": Cifar10Config, "cifar100": Cifar100Config}[name]
    samples = load_alone(Cifar(schema(classes=3), 4, tmp_path))
    assert same_pictures(samples, {key: row.reshape(3, 32, 32).transpose(1, 2, 0) for key, row in written.items()})
    assert samples.class_names == ("class0", "class1", "class2")
    assert {name.split("_")[0] for name in np.array(samples.names)[samples.indices("test")]} == {"test"}
    assert (samples.labels == np.tile([0, 1, 2, 0], len(written) // 4)).all()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifars_pickles_that_another_program_wrote_again(tmp_path: Path, name: str, protocol: int) -> None:
    """Read with `encoding="bytes"` and saved: bytes as keys and names, scalars of numpy as labels."""
    folder = tmp_path / {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}[name]
    written = write_cifar_pickles(folder, name)
    for file in folder.iterdir():
        content = load_pickle(file.read_bytes())
        again = {
            key.encode(): [one.encode() if isinstance(one, str) else np.int64(one) for one in value]
            if isinstance(value, list)
            else value
            for key, value in content.items()
        }
        file.write_bytes(pickle.dumps(OrderedDict(again) if "test" in file.name else again, protocol))
    schema = {"cifar10": Cifar10Config, "cifar100": Cifar100Config}[name]
    samples = load_alone(Cifar(schema(classes=3), 4, tmp_path))
    assert same_pictures(samples, {key: row.reshape(3, 32, 32).transpose(1, 2, 0) for key, row in written.items()})
    assert samples.class_names == ("class0", "class1", "class2")


def test_class_names_of_cifar_are_text_and_differ(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    write_cifar_pickles(folder)
    names = {b"label_names": ["é".encode(), b"caf\xe9", b"c"]}
    (folder / "batches.meta").write_bytes(pickle.dumps(names))
    assert load_cifar(tmp_path, None).class_names == ("é", "café", "c")
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": ["a", "b", "a"]}))
    with pytest.raises(UserError, match=r"batches\.meta names a class twice: a\."):
        load_cifar(tmp_path, None)


def test_cifars_pickles_can_be_enlarged(tmp_path: Path) -> None:
    written = write_cifar_pickles(tmp_path / "cifar-10-batches-py")
    samples = load_cifar(tmp_path, None, image_size=40)
    name, row = next(iter(written.items()))
    expected = fit(Image.fromarray(row.reshape(3, 32, 32).transpose(1, 2, 0)), 40)
    assert (by_name(samples)[name] == np.asarray(expected)).all()


def test_a_pickle_that_names_code_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "run",))

    with pytest.raises(ValueError, match="not allowed in a data file"):
        load_pickle(pickle.dumps({"data": Evil()}))
    assert not (tmp_path / "run").exists()
    array = np.arange(6, dtype=np.uint8).reshape(2, 3)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert (load_pickle(pickle.dumps({"data": array}, protocol))["data"] == array).all()


@pytest.mark.parametrize("packed", [False, True])
def test_tiny_imagenets_own_layout(tmp_path: Path, packed: bool) -> None:
    written = write_tiny_imagenet(tmp_path / "tiny-imagenet-200")
    source = tmp_path / "tiny-imagenet-200"
    if packed:
        source = pack(source, tmp_path / "t.zip", "tiny-imagenet-200/")
    samples = load_tiny(tmp_path, source)
    assert same_pictures(samples, written)
    assert samples.class_names == ("n01000000 ant", "n02000000", "n03000000"), "sorted, not as in wnids.txt"
    labels = dict(zip(samples.names, samples.labels.tolist(), strict=True))
    assert labels["train/n03000000/images/n03000000_1.png"] == 2
    assert [labels[f"val/images/val_{number}.png"] for number in range(6)] == [2, 2, 0, 0, 1, 1]
    assert [len(samples.indices(split)) for split in SPLITS] == [9, 3, 6]


def test_tiny_imagenet_sorted_into_class_folders(tmp_path: Path) -> None:
    written = write_class_folders(tmp_path / "t", size=64, counts={"train": 2, "val": 1})
    assert same_pictures(load_tiny(tmp_path, tmp_path / "t"), written)


# What is wrong is named, and refused or skipped.

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


def test_a_repaired_file_makes_another_set(tmp_path: Path) -> None:
    written = write_class_folders(tmp_path / "pets")
    picture = tmp_path / "pets" / "train" / "ant" / "000.png"
    content = picture.read_bytes()
    picture.write_bytes(b"")
    load_cifar(tmp_path, tmp_path / "pets", on_bad_file="skip")
    picture.write_bytes(content)
    assert same_pictures(load_cifar(tmp_path, tmp_path / "pets"), written)


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


def batch(folder: Path, **changes: Any) -> None:
    """Change the contents of the second training batch of the pickles."""
    content = load_pickle((folder / "data_batch_2").read_bytes())
    (folder / "data_batch_2").write_bytes(pickle.dumps(content | changes))


BAD_BATCHES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda folder: (folder / "data_batch_2").unlink(), "is missing"),
    "cut off": (
        lambda folder: (folder / "data_batch_2").write_bytes((folder / "data_batch_2").read_bytes()[:5000]),
        "cannot be unpickled",
    ),
    "empty": (lambda folder: (folder / "data_batch_2").write_bytes(b""), "cannot be unpickled"),
    "too few labels": (lambda folder: batch(folder, labels=[0]), "4 images, 1 label and 4 names"),
    "too few names": (lambda folder: batch(folder, filenames=["a"]), "4 images, 4 labels and 1 name"),
    "unknown label": (lambda folder: batch(folder, labels=[0, 1, 2, 3]), "labels outside 0 to 2"),
    "other size": (
        lambda folder: batch(folder, data=np.zeros((4, 27), np.uint8)),
        r"uint8 \(4, 27\) instead of uint8 \[images, 3072\]",
    ),
    "no array": (lambda folder: batch(folder, data=[1, 2]), "'data' is list"),
}


@pytest.mark.parametrize("kind", BAD_BATCHES)
def test_a_bad_pickle_is_refused_or_skipped_by_its_name(tmp_path: Path, kind: str) -> None:
    spoil, reason = BAD_BATCHES[kind]
    folder = tmp_path / "cifar-10-batches-py"
    write_cifar_pickles(folder)
    spoil(folder)
    with pytest.raises(UserError, match=reason) as error:
        load_cifar(tmp_path, None)
    assert str(folder / "data_batch_2") in str(error.value)
    samples = load_cifar(tmp_path, None, on_bad_file="skip")
    assert len(samples.labels) == 20


def annotate(folder: Path, change: Callable[[list[str]], list[str]]) -> None:
    path = folder / "val" / "val_annotations.txt"
    path.write_text("".join(change(path.read_text().splitlines(keepends=True))))


DISAGREEMENTS: dict[str, tuple[Callable[[Path], object], str, int]] = {
    "a name without a file": (
        lambda folder: annotate(folder, lambda lines: [*lines, "gone.png\tn01000000\t0\t0\t1\t1\n"]),
        r"val_annotations\.txt, line 7: lists gone\.png, which is not in val/images",
        18,
    ),
    "an unknown class": (
        lambda folder: annotate(folder, lambda lines: [lines[0].replace("n03000000", "n99"), *lines[1:]]),
        r"line 1: gives val_0\.png the class 'n99', which is not in wnids\.txt",
        17,
    ),
    "a name twice": (
        lambda folder: annotate(folder, lambda lines: [*lines, lines[0]]),
        r"line 7: lists val_0\.png twice",
        18,
    ),
    "a line cut off": (
        lambda folder: annotate(folder, lambda lines: [*lines[:-1], "val_5.png"]),
        r"line 6: gives val_5\.png the class ''",
        17,
    ),
    "a file without a line": (
        lambda folder: annotate(folder, lambda lines: lines[1:]),
        r"val/images/val_0\.png: is not in val/val_annotations\.txt",
        17,
    ),
    "a folder that is no class": (
        lambda folder: shutil.copytree(folder / "train" / "n01000000", folder / "train" / "n77"),
        r"train/n77: is not in wnids\.txt",
        18,
    ),
}


@pytest.mark.parametrize("kind", DISAGREEMENTS)
def test_tiny_imagenets_lists_and_files_must_agree(tmp_path: Path, kind: str) -> None:
    spoil, reason, left = DISAGREEMENTS[kind]
    folder = tmp_path / "tiny"
    write_tiny_imagenet(folder)
    spoil(folder)
    with pytest.raises(UserError, match=reason):
        load_tiny(tmp_path, folder)
    assert len(load_tiny(tmp_path, folder, on_bad_file="skip").labels) == left


def test_tiny_imagenet_without_its_list_or_a_class(tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    write_tiny_imagenet(folder)
    shutil.rmtree(folder / "train" / "n02000000")
    with pytest.raises(UserError, match=r"wnids\.txt lists classes without training images: n02000000"):
        load_tiny(tmp_path, folder, on_bad_file="skip")
    (folder / "wnids.txt").unlink()
    with pytest.raises(UserError, match=r"wnids\.txt is missing"):
        load_tiny(tmp_path, folder)


# The files go, the set stays.


def test_a_prepared_set_is_used_when_its_files_are_gone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    written = write_class_folders(tmp_path / "pets")
    load_folder(tmp_path, tmp_path / "pets")
    shutil.rmtree(tmp_path / "pets")
    with caplog.at_level("INFO"):
        assert same_pictures(load_folder(tmp_path, tmp_path / "pets"), written)
    assert "are missing; using" in caplog.text
    with pytest.raises(UserError, match="does not exist"):
        load_folder(tmp_path, tmp_path / "pets", size=16)


def test_sets_of_changed_files_are_left_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_class_folders(tmp_path / "pets")
    first = load_folder(tmp_path, tmp_path / "pets")
    load_folder(tmp_path, tmp_path / "pets", size=16)
    (tmp_path / "pets" / "train" / "ant" / "new.png").write_bytes(encoded(pixels(99)))
    with caplog.at_level("INFO"):
        assert len(load_folder(tmp_path, tmp_path / "pets").labels) == len(first.labels) + 1
    told = [record.getMessage() for record in caplog.records if "can be deleted" in record.getMessage()]
    assert len(told) == 1, "the set of 16x16 pixels is another option's and stays out of it"
    assert str(Path(first.labels.filename).parent) in told[0]  # type: ignore[attr-defined]
    assert told[0].count("image_folder-split-") == 1, "its split goes with it"


def test_a_set_of_another_version_is_left_alone_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = write_class_folders(tmp_path / "pets")
    old = load_folder(tmp_path, tmp_path / "pets")
    monkeypatch.setattr(picture_source, "VERSION", 99)
    with caplog.at_level("INFO"):
        new = load_folder(tmp_path, tmp_path / "pets")
    assert new.labels.filename != old.labels.filename  # type: ignore[attr-defined]
    assert same_pictures(old, written)
    assert same_pictures(new, written)
    assert "by another version" in caplog.text
    assert str(Path(old.labels.filename).parent) in caplog.text  # type: ignore[attr-defined]


def test_opening_a_set_reads_no_list_of_files(tmp_path: Path) -> None:
    """No file names are read, neither from the archive nor from the data set; a changed archive is still detected."""
    write_class_folders(tmp_path / "files", size=4)
    archive = pack(tmp_path / "files", tmp_path / "a.zip")
    load_folder(tmp_path, archive)
    content = archive.read_bytes()
    stamp = archive.stat()
    archive.write_bytes(b"x" * len(content))  # cannot even be listed
    os.utime(archive, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    with pytest.raises(UserError, match="nor a readable zip"):
        load_folder(tmp_path, archive)


# Holding out.


def test_hold_out_is_stratified_fixed_and_leaves_the_rest() -> None:
    labels = np.repeat(np.arange(4), 100)
    splits = np.where(np.arange(400) % 10 == 0, 2, 0).astype(np.uint8)
    held = hold_out(labels, splits, 0.1, 7)
    assert (held[splits == 2] == 2).all()
    assert [int(((held == 1) & (labels == label)).sum()) for label in range(4)] == [9] * 4
    assert (hold_out(labels, splits, 0.1, 7) == held).all()
    assert (hold_out(labels, splits, 0.1, 8) != held).any()
    assert (hold_out(labels, splits, 0.0, 7) == splits).all()
    assert not splits[splits == 1].size, "the argument was changed"


def test_hold_out_never_takes_all_nor_none() -> None:
    labels = np.array([0, 1, 1, 2, 2, 2])
    held = hold_out(labels, np.zeros(6, np.uint8), 0.01, 0)
    assert [int((held[labels == label] == 1).sum()) for label in range(3)] == [0, 1, 1]
    held = hold_out(labels, np.zeros(6, np.uint8), 0.99, 0)
    assert [int((held[labels == label] == 0).sum()) for label in range(3)] == [1, 1, 1]


def test_hold_out_keeps_groups_together_or_takes_the_end_of_a_single_one() -> None:
    labels = np.repeat([0, 1], 40)
    groups = np.concatenate([np.arange(40) // 4, np.full(40, 10)])
    held = hold_out(labels, np.zeros(80, np.uint8), 0.2, 3, groups)
    for group in range(10):
        assert len(set(held[groups == group].tolist())) == 1
    assert (held[:40] == 1).sum() == 8
    assert held[40:].tolist() == [0] * 32 + [1] * 8


def test_hold_out_of_people_holds_for_all_classes() -> None:
    """A subject without samples of one class is not in training for some classes and in validation for others."""
    groups = np.repeat(np.arange(20), 3)
    labels = np.tile([0, 1, 2], 20)
    present = (groups % 3 != 0) | (labels != 2)
    held = hold_out(labels[present], np.zeros(present.sum(), np.uint8), 0.25, 3, groups[present])
    of_person = [set(held[groups[present] == person].tolist()) for person in range(20)]
    assert sorted(map(len, of_person)) == [1] * 20
    assert of_person.count({1}) == 5


# Real files.


def test_real_cifar_decodes_as_an_independent_reading(shared_data: Path, tmp_path: Path) -> None:
    """60 images of the archive, read by hand; labels by the official list."""
    official = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    archive = shared_data / "cifar10.zip"
    if not archive.is_file():
        pytest.skip(f"{archive} is not there")
    with zipfile.ZipFile(archive) as file:
        names = sorted(file.namelist())
        chosen = [name for name in names if "_s_00004" in name][:60]
        with zipfile.ZipFile(tmp_path / "some.zip", "w") as some:
            for name in chosen:
                some.writestr(name, file.read(name))
            for label in official:
                for split in ("train", "test"):
                    name = next(name for name in names if name.startswith(f"{split}/{label}/"))
                    if name not in chosen:
                        chosen.append(name)
                        some.writestr(name, file.read(name))
        samples = load_cifar(tmp_path, tmp_path / "some.zip", classes=10)
        assert list(samples.class_names) == official
        found = by_name(samples)
        assert found.keys() == set(chosen)
        for name, label in zip(samples.names, samples.labels, strict=True):
            with Image.open(io.BytesIO(file.read(name))) as picture:
                assert (found[name] == np.asarray(picture.convert("RGB"))).all()
            assert official[label] == name.split("/")[1]


def test_real_tiny_imagenet_has_grey_pictures_too(shared_data: Path, tmp_path: Path) -> None:
    archive = shared_data / "tiny_imagenet_10.zip"
    if not archive.is_file():
        pytest.skip(f"{archive} is not there")
    config = TinyImageNetConfig(source=str(archive), classes=10)
    source = TinyImageNet(config, 4, tmp_path)
    source.prepare_workers = 1
    samples = source.load()
    assert [len(samples.indices(split)) for split in SPLITS] == [2250, 250, 500]
    grey = (samples.inputs[:, 0] == samples.inputs[:, 1]).all(axis=(1, 2))
    assert 0 < int(grey.sum()) < 300
    with zipfile.ZipFile(archive) as file:
        top = "tiny-imagenet-200/"
        lines = file.read(top + "val/val_annotations.txt").decode().splitlines()
        truth = {f"val/images/{line.split()[0]}": line.split()[1] for line in lines}
        for index in [*samples.indices("test")[::25], *samples.indices("train")[::150], *np.flatnonzero(grey)[:5]]:
            name = samples.names[index]
            picture = np.asarray(Image.open(io.BytesIO(file.read(top + name))).convert("RGB"))
            assert (samples.inputs[index].transpose(1, 2, 0) == picture).all()
            wnid = truth.get(name) or name.split("/")[1]
            assert samples.class_names[samples.labels[index]].split()[0] == wnid
