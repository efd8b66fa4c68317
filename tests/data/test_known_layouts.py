"""Data sets as scripts and publishers arrange them: the images determine the layout, not a file beside them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gradspike.data.options.pictures import ImageFolderConfig, ImageNetConfig, TinyImageNetConfig
from gradspike.data.sets.image_folder import ImageFolder
from gradspike.data.sets.imagenet import ImageNet
from gradspike.data.sets.tiny_imagenet import TinyImageNet
from gradspike.data.source import Samples
from gradspike.errors import UserError
from helpers.data_samples import encoded, pixels, write_class_folders, write_tiny_imagenet

WNIDS = ("n01000000", "n02000000", "n03000000")
CLASS_OF = {"val_0": 2, "val_1": 2, "val_2": 0, "val_3": 0, "val_4": 1, "val_5": 1}
"""Labels of the images of `write_tiny_imagenet`."""


def tiny(data_dir: Path, source: Path, **options: object) -> Samples:
    return TinyImageNet(TinyImageNetConfig(source=str(source), classes=3, **options), 1, data_dir).load()  # type: ignore[arg-type]


def imagenet(data_dir: Path, source: Path, **options: object) -> Samples:
    sizes = {"image_size": 32, "shorter_side": 36, "eval_shorter_side": 34}
    return ImageNet(ImageNetConfig(source=str(source), classes=3, **sizes, **options), 1, data_dir).load()  # type: ignore[arg-type]


def left_out(samples: Samples) -> dict[str, int]:
    assert samples.folder is not None
    found: dict[str, int] = json.loads((samples.folder / "meta.json").read_text())["facts"]["left_out"]
    return found


def move(folder: Path, place: str, names: list[str] | None = None, copy: bool = False) -> None:
    """Sort val/images into folders; place: where an image goes, with {wnid} and {name}."""
    for name in names or sorted(path.name for path in (folder / "val" / "images").iterdir()):
        target = folder / place.format(wnid=WNIDS[CLASS_OF[Path(name).stem]], name=name)
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copy if copy else shutil.move)(str(folder / "val" / "images" / name), target)


def remove(*names: str) -> Callable[[Path], None]:
    def act(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return act


SORTED: dict[str, list[Callable[[Path], object]]] = {
    "official": [],
    "val/<wnid>": [lambda f: move(f, "val/{wnid}/{name}"), lambda f: (f / "val/images").rmdir()],
    "val/<wnid>, val/images stays": [lambda f: move(f, "val/{wnid}/{name}")],
    "val/<wnid>/images": [lambda f: move(f, "val/{wnid}/images/{name}"), lambda f: (f / "val/images").rmdir()],
    "val/images/<wnid>": [lambda f: move(f, "val/images/{wnid}/{name}")],
    "copied": [lambda f: move(f, "val/{wnid}/{name}", copy=True)],
    "half way": [lambda f: move(f, "val/{wnid}/{name}", ["val_0.png", "val_2.png"])],
    "without annotations": [lambda f: move(f, "val/{wnid}/{name}"), remove("val/val_annotations.txt")],
    "without lists": [lambda f: move(f, "val/{wnid}/{name}"), remove("val/val_annotations.txt", "wnids.txt")],
    "annotations, no wnids.txt": [lambda f: move(f, "val/{wnid}/{name}"), remove("wnids.txt")],
    "without test": [lambda f: move(f, "val/{wnid}/{name}"), lambda f: shutil.rmtree(f / "test")],
}


@pytest.mark.parametrize("how", SORTED)
def test_tiny_imagenet_as_scripts_leave_it(tmp_path: Path, how: str) -> None:
    folder = tmp_path / "tiny-imagenet-200"
    write_tiny_imagenet(folder)
    for act in SORTED[how]:
        act(folder)
    samples = tiny(tmp_path, folder)
    assert [len(samples.indices(split)) for split in ("train", "val", "test")] == [9, 3, 6]
    assert samples.class_names == ("n01000000 ant", "n02000000", "n03000000")
    for index in samples.indices("test").tolist():
        assert samples.labels[index] == CLASS_OF[Path(samples.names[index]).stem]
    counts = left_out(samples)
    assert counts["train/**/*.txt"] == 3, "the boxes"
    assert counts.get("test/**/*.png", 0) == (how != "without test")
    assert counts.get("val/**/*.png", 0) == (6 if how == "copied" else 0)
    assert counts.get("val/**/*.txt", 0) == ("without annotations" not in how and "without lists" not in how)


def test_tiny_imagenet_with_a_labelled_test_split_made_of_val(tmp_path: Path) -> None:
    """A script that divides the validation images between val and test, by class."""
    folder = tmp_path / "tiny"
    write_tiny_imagenet(folder)
    shutil.rmtree(folder / "test")
    move(folder, "val/{wnid}/images/{name}", ["val_0.png", "val_2.png", "val_4.png"])
    move(folder, "test/{wnid}/images/{name}")
    samples = tiny(tmp_path, folder)
    assert [len(samples.indices(split)) for split in ("train", "val", "test")] == [12, 3, 3]


def test_tiny_imagenet_lists_from_other_editors(tmp_path: Path) -> None:
    """With a byte order mark, lines that end as on Windows, spaces for tabs."""
    folder = tmp_path / "tiny"
    write_tiny_imagenet(folder)
    for name in ("wnids.txt", "words.txt", "val/val_annotations.txt"):
        path = folder / name
        lines = path.read_text().splitlines()
        path.write_bytes(
            ("\ufeff" + "\r\n".join(lines) + "\r\n").encode("utf-16-le" if name == "words.txt" else "utf-8")
        )
    samples = tiny(tmp_path, folder)
    assert samples.class_names == ("n01000000 ant", "n02000000", "n03000000")
    assert len(samples.indices("test")) == 6
    path = folder / "val/val_annotations.txt"
    path.write_text(path.read_text(encoding="utf-8-sig").replace("\t", "  "))
    assert len(tiny(tmp_path, folder).indices("test")) == 6


def test_tiny_imagenet_whose_folders_contradict_its_annotations(tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    write_tiny_imagenet(folder)
    move(folder, "val/n01000000/{name}", ["val_0.png"])
    with pytest.raises(UserError, match=r"val_0.png the class 'n03000000', but it is in the folder n01000000"):
        tiny(tmp_path, folder)


def test_tiny_imagenet_without_labels_for_val_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    write_tiny_imagenet(folder)
    (folder / "val" / "val_annotations.txt").unlink()
    with pytest.raises(UserError, match=r"val/images has 6 images .*val_annotations.txt is missing"):
        tiny(tmp_path, folder)


# Kaggle's ImageNet.


def write_kaggle(root: Path) -> Path:
    """The unpacked competition: images, boxes, lists, the labels of val. Returns the folder of images."""
    place = root / "ILSVRC" / "Data" / "CLS-LOC"
    write_class_folders(place, size=40, classes=("n01", "n02", "n03"), counts={"train": 3})
    lines = ["ImageId,PredictionString"]
    for number in range(1, 7):
        name = f"ILSVRC2012_val_{number:08d}"
        (place / "val").mkdir(exist_ok=True)
        (place / "val" / f"{name}.JPEG").write_bytes(encoded(pixels(number, 40), "JPEG"))
        lines.append(f"{name},n0{(number - 1) % 3 + 1} 85 1 499 272 n0{(number - 1) % 3 + 1} 1 2 3 4 ")
        boxes = root / "ILSVRC" / "Annotations" / "CLS-LOC" / "val" / f"{name}.xml"
        boxes.parent.mkdir(parents=True, exist_ok=True)
        boxes.write_text("<annotation/>")
    (place / "test").mkdir()
    for number in range(1, 4):
        (place / "test" / f"ILSVRC2012_test_{number:08d}.JPEG").write_bytes(encoded(pixels(number, 40), "JPEG"))
    lists = root / "ILSVRC" / "ImageSets" / "CLS-LOC"
    lists.mkdir(parents=True)
    (lists / "train_cls.txt").write_text("n01/000 1\n")
    (root / "LOC_val_solution.csv").write_text("\n".join(lines) + "\n")
    (root / "LOC_train_solution.csv").write_text("ImageId,PredictionString\n")
    (root / "LOC_sample_submission.csv").write_text("ImageId,PredictionString\n")
    (root / "LOC_synset_mapping.txt").write_text("n01 ant\n")
    return place


@pytest.mark.parametrize("storage", ["encoded", "pixels"])
def test_kaggles_imagenet_as_it_is(tmp_path: Path, storage: str) -> None:
    write_kaggle(tmp_path / "kaggle")
    samples = imagenet(tmp_path, tmp_path / "kaggle", storage=storage, augment={"flip": True})
    assert samples.class_names == ("n01", "n02", "n03")
    assert len(samples.indices("train")) + len(samples.indices("val")) == 9
    test = samples.indices("test").tolist()
    assert [samples.labels[index] for index in sorted(test, key=lambda index: samples.names[index])] == [
        0,
        1,
        2,
        0,
        1,
        2,
    ]
    counts = left_out(samples)
    assert counts["test/**/*.JPEG"] == 3
    assert counts["LOC_val_solution.csv"] == 1
    assert counts["ILSVRC/**/*.xml"] == 6


def test_kaggles_imagenet_sorted_by_the_usual_script(tmp_path: Path) -> None:
    place = write_kaggle(tmp_path / "kaggle")
    for number, path in enumerate(sorted((place / "val").iterdir())):
        (place / "val" / f"n0{number % 3 + 1}").mkdir(exist_ok=True)
        shutil.move(path, place / "val" / f"n0{number % 3 + 1}" / path.name)
    for source in (tmp_path / "kaggle", place):
        samples = imagenet(tmp_path, source)
        assert len(samples.indices("test")) == 6
        assert left_out(samples)["test/**/*.JPEG"] == 3


def test_kaggles_validation_pictures_without_their_table_are_refused(tmp_path: Path) -> None:
    place = write_kaggle(tmp_path / "kaggle")
    with pytest.raises(UserError, match=r"(?s)val/ has 6 images .*LOC_val_solution.csv"):
        imagenet(tmp_path, place)
    table = tmp_path / "kaggle" / "LOC_val_solution.csv"
    lines = table.read_text().splitlines()
    table.write_text("\n".join(lines[:-1]))
    with pytest.raises(UserError, match=r"ILSVRC2012_val_00000006.JPEG: is not in a class folder"):
        imagenet(tmp_path, tmp_path / "kaggle")
    table.write_text("\n".join([*lines, "ILSVRC2012_val_00000007,n01 1 2 3 4"]))
    with pytest.raises(UserError, match=r"ILSVRC2012_val_00000007: is in LOC_val_solution.csv but missing"):
        imagenet(tmp_path, tmp_path / "kaggle")


# Kaggle's ImageNet-100.


def write_imagenet100(root: Path, parts: tuple[str, ...] = ("train.X1", "train.X2", "train.X3")) -> None:
    """One class in each part of the training split."""
    write_class_folders(root, size=40, classes=("n01", "n02", "n03"), counts={"train": 3, "val": 2})
    for part, wnid in zip(parts, ("n01", "n02", "n03"), strict=True):
        (root / part).mkdir(exist_ok=True)
        (root / "train" / wnid).rename(root / part / wnid)
    (root / "train").rmdir()
    (root / "val").rename(root / "val.X")
    (root / "Labels.json").write_text('{"n01": "ant"}')


@pytest.mark.parametrize("below", ["", "archive", "a/b"])
def test_kaggles_imagenet_100_in_parts(tmp_path: Path, below: str) -> None:
    write_imagenet100(tmp_path / "in100" / below)
    samples = imagenet(tmp_path, tmp_path / "in100")
    assert samples.class_names == ("n01", "n02", "n03")
    assert [len(samples.indices(split)) for split in ("train", "val", "test")] == [6, 3, 6]
    assert np.bincount(samples.labels).tolist() == [5, 5, 5]
    assert left_out(samples) == {"Labels.json": 1}


def test_imagenet_100_in_a_zip_and_with_another_number_of_parts(tmp_path: Path) -> None:
    write_imagenet100(tmp_path / "in100", ("train.X1", "train.X2", "train.X2"))
    shutil.make_archive(str(tmp_path / "in100"), "zip", tmp_path / "in100")
    assert len(imagenet(tmp_path, tmp_path / "in100.zip").labels) == 15


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda root: shutil.rmtree(root / "train.X2"), r"train\.X1, train\.X3 are parts .* train\.X2 is missing"),
        (lambda root: shutil.copytree(root / "train.X1", root / "train.X4"), r"X1 and train\.X4 both have n01/"),
        (
            lambda root: shutil.copytree(root / "train.X1", root / "train"),
            r"the train split is in 4 folders: train, tr",
        ),
        (lambda root: shutil.rmtree(root / "train.X3"), r"test has classes that train does not have: n03"),
    ],
)
def test_parts_that_are_missing_or_doubled_are_refused(
    tmp_path: Path, change: Callable[[Path], object], said: str
) -> None:
    write_imagenet100(tmp_path / "in100")
    change(tmp_path / "in100")
    with pytest.raises(UserError, match=said):
        imagenet(tmp_path, tmp_path / "in100")


def test_parts_of_ones_own_images_are_joined_too(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "pets", counts={"train": 2, "test": 1})
    (tmp_path / "pets" / "train").rename(tmp_path / "pets" / "train.X1")
    assert len(folder(tmp_path, tmp_path / "pets").indices("test")) == 3


# Where the images are.


def folder(data_dir: Path, source: Path) -> Samples:
    return ImageFolder(ImageFolderConfig(source=str(source), image_size=16, classes=3), 1, data_dir).load()


def test_pictures_are_found_beside_files_that_are_none(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "all" / "deep" / "pets")
    (tmp_path / "all" / "README.md").write_text("about")
    (tmp_path / "all" / "docs" / "train" / "x").mkdir(parents=True)
    (tmp_path / "all" / "docs" / "train" / "x" / "notes.txt").write_text("no picture")
    samples = folder(tmp_path, tmp_path / "all")
    assert len(samples.labels) == 18
    assert left_out(samples) == {"README.md": 1, "docs/**/*.txt": 1}


def test_of_two_data_sets_none_is_guessed(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "all" / "pets")
    write_class_folders(tmp_path / "all" / "birds")
    with pytest.raises(UserError, match="contains several data sets: birds, pets"):
        folder(tmp_path, tmp_path / "all")


@pytest.mark.parametrize(("split", "copy"), [("train", "Train"), ("val", "valid"), ("test", "testing")])
def test_a_split_in_two_folders_is_refused(tmp_path: Path, split: str, copy: str) -> None:
    write_class_folders(tmp_path / "pets", counts={"train": 2, "val": 1, "test": 1})
    shutil.copytree(tmp_path / "pets" / split, tmp_path / "pets" / copy)
    with pytest.raises(UserError, match=f"the {split} split is in 2 folders: {split}, {copy}"):
        folder(tmp_path, tmp_path / "pets")


def test_unlabelled_test_pictures_of_ones_own_are_still_refused(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "pets", counts={"train": 3, "val": 2})
    (tmp_path / "pets" / "test").mkdir()
    (tmp_path / "pets" / "test" / "1.png").write_bytes(encoded(pixels(1)))
    with pytest.raises(UserError, match=r"test/1.png: is not in a class folder"):
        folder(tmp_path, tmp_path / "pets")


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [("Train", "Validation", "Test"), ("TRAIN", "VALIDATION", "TEST"), ("Training", "Valid", "Testing")],
)
def test_split_folders_in_capitals(tmp_path: Path, train: str, val: str, test: str) -> None:
    write_class_folders(tmp_path / "pets", counts={"train": 3, "val": 2, "test": 1})
    for before, after in (("train", train), ("val", val), ("test", test)):
        (tmp_path / "pets" / before).rename(tmp_path / "pets" / after)
    samples = folder(tmp_path, tmp_path / "pets")
    assert [len(samples.indices(split)) for split in ("train", "val", "test")] == [9, 6, 3]


@pytest.mark.parametrize("val", ["Validation", "VAL", "valid", "Val"])
def test_imagenets_validation_folder_under_other_names(tmp_path: Path, val: str) -> None:
    write_class_folders(tmp_path / "in", size=40, counts={"train": 3, "val": 2})
    (tmp_path / "in" / "train").rename(tmp_path / "in" / "Train")
    (tmp_path / "in" / "val").rename(tmp_path / "in" / val)
    assert len(imagenet(tmp_path, tmp_path / "in").indices("test")) == 6


def test_kaggles_imagenet_with_its_validation_folder_in_capitals(tmp_path: Path) -> None:
    images = write_kaggle(tmp_path / "kaggle")
    (images / "val").rename(images / "Validation")
    assert len(imagenet(tmp_path, tmp_path / "kaggle").indices("test")) == 6


def pack_first_class(source: Path) -> None:
    first = sorted((source / "train").iterdir())[0]
    shutil.make_archive(str(first), "tar", first)
    shutil.rmtree(first)


def pack_all(source: Path) -> None:
    shutil.make_archive(str(source.parent / "data"), "gztar", source)
    shutil.rmtree(source)
    source.mkdir()
    shutil.move(source.parent / "data.tar.gz", source)


def broken_test(source: Path) -> None:
    shutil.rmtree(source / "test")
    (source / "test").symlink_to("/nowhere/test")


def flat_test(source: Path) -> None:
    for number, file in enumerate(sorted((source / "test").rglob("*.png"))):
        file.rename(source / "test" / f"{number}.png")
    for inner in (source / "test").iterdir():
        if inner.is_dir():
            inner.rmdir()


def tables(source: Path) -> None:
    shutil.rmtree(source / "test")
    (source / "test-00000-of-00001.parquet").write_bytes(b"PAR1")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (pack_first_class, r"contains 1 archive \(train/\w+\.tar\): unpack it"),
        (pack_all, r"contains 1 archive \(data\.tar\.gz\): unpack it, or add dataset\.source=\S+/pets/data\.tar\.gz"),
        (broken_test, "1 link to a file that does not exist: test"),
        (flat_test, r"3 images \(test/0\.png, ...\) are in no class folder, so their labels are unknown"),
        (tables, r"gradspike does not read test-00000-of-00001\.parquet; export the samples to class folders"),
    ],
)
def test_a_missing_split_is_explained_by_what_is_there(
    tmp_path: Path, change: Callable[[Path], None], said: str
) -> None:
    write_class_folders(tmp_path / "pets", counts={"train": 3, "test": 1})
    change(tmp_path / "pets")
    with pytest.raises(UserError, match=said):
        folder(tmp_path, tmp_path / "pets")
