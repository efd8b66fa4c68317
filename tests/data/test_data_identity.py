"""A prepared data set replaces only its own missing files, and only data sets of the same files are listed as old."""

from __future__ import annotations

import json
import shutil
import unicodedata
from pathlib import Path

import pytest

from gradspike.data.options.events import Cifar10DvsSimConfig
from gradspike.data.options.pictures import Cifar10Config, ImageFolderConfig, ImageNetConfig
from gradspike.data.sets.cifar import Cifar
from gradspike.data.sets.cifar10dvs_sim import Cifar10DvsSim
from gradspike.data.sets.image_folder import ImageFolder
from gradspike.data.sets.imagenet import ImageNet
from gradspike.data.source import Samples
from gradspike.errors import UserError
from helpers.data_samples import encoded, pack, pixels, write_cifar_pickles, write_class_folders


def load(data_dir: Path, source: Path | str | None, **options: object) -> Samples:
    config = ImageFolderConfig(
        source=None if source is None else str(source), **{"image_size": 16, "classes": 3, **options}
    )
    return ImageFolder(config, 1, data_dir).load()


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Prepared, and gone."""
    write_class_folders(tmp_path / "X" / "pets")
    load(tmp_path, tmp_path / "X" / "pets")
    shutil.rmtree(tmp_path / "X" / "pets")
    return tmp_path / "X" / "pets"


def test_a_mistyped_source_does_not_train_on_what_happens_to_be_prepared(pets: Path, tmp_path: Path) -> None:
    write_class_folders(tmp_path / "X" / "birds")
    with pytest.raises(UserError) as error:
        load(tmp_path, tmp_path / "X" / "brids")
    message = str(error.value)
    assert f"{tmp_path}/X/brids does not exist. Did you mean {tmp_path}/X/birds?" in message
    assert f"Prepared from {pets}: image_folder-" in message


def test_the_nearest_existing_folder_is_named_if_nothing_is_alike(pets: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"closest existing path is {tmp_path}/X\."):
        load(tmp_path, tmp_path / "X" / "quite" / "another")
    write_class_folders(tmp_path / "Y" / "birds")
    with pytest.raises(UserError, match=rf"Did you mean {tmp_path}/Y/birds\?"):
        load(tmp_path, tmp_path / "YY" / "birds")


def test_a_name_in_another_unicode_form_is_told_from_the_one_that_looks_the_same(tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "caf\u00e9") for form in ("NFC", "NFD"))
    write_class_folders(tmp_path / decomposed)
    if not (tmp_path / composed).exists():  # as it does on macOS
        with pytest.raises(UserError, match=f"{decomposed} exists, whose name looks the same but"):
            load(tmp_path, tmp_path / composed)


def test_no_source_does_not_mean_any_source(pets: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"(?s)was not found.*Prepared from {pets}: image_folder-"):
        load(tmp_path, None)


def test_the_path_that_was_prepared_is_found_however_it_is_written(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "X")
    for source in ("X/pets", "X/../X/pets/", str(pets), "link/pets"):
        assert len(load(tmp_path, source).labels) == 18


def test_a_link_that_points_elsewhere_now_is_another_source(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "one")
    (tmp_path / "current").symlink_to(tmp_path / "one")
    load(tmp_path, tmp_path / "current")
    (tmp_path / "current").unlink()
    (tmp_path / "current").symlink_to(tmp_path / "two")
    with pytest.raises(UserError, match="does not exist"):
        load(tmp_path, tmp_path / "current")


def test_a_data_dir_that_is_moved_keeps_the_sets_of_its_own_files(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    write_class_folders(data_dir / "image_folder")
    load(data_dir, None)
    shutil.rmtree(data_dir / "image_folder")
    moved = data_dir.rename(tmp_path / "moved")
    assert len(load(moved, None).labels) == 18
    assert len(load(moved, moved / "image_folder").labels) == 18
    with pytest.raises(UserError, match="does not exist"):
        load(moved, data_dir / "image_folder_2")


def test_earlier_files_do_not_stand_in_for_later_ones(tmp_path: Path) -> None:
    place = tmp_path / "pets"
    write_class_folders(place)
    load(tmp_path, place)
    (place / "train" / "ant" / "new.png").write_bytes(encoded(pixels(99)))
    load(tmp_path, place, image_size=24)
    shutil.rmtree(place)
    with pytest.raises(UserError, match="does not exist"):
        load(tmp_path, place)
    assert len(load(tmp_path, place, image_size=24).labels) == 19


def test_of_two_states_of_a_folder_the_last_one_stands_in(tmp_path: Path) -> None:
    place = tmp_path / "pets"
    write_class_folders(place)
    load(tmp_path, place)
    (place / "train" / "ant" / "new.png").write_bytes(encoded(pixels(99)))
    load(tmp_path, place)
    shutil.rmtree(place)
    assert len(load(tmp_path, place).labels) == 19


@pytest.mark.parametrize("kind", ["encoded", "pickles", "sim"])
def test_every_kind_of_set_is_known_by_its_path(kind: str, tmp_path: Path) -> None:
    if kind == "encoded":
        write_class_folders(tmp_path / "pets", counts={"train": 4, "val": 2})

        def opened(source: str) -> Samples:
            sizes = {"image_size": 16, "shorter_side": 24, "eval_shorter_side": 20}
            return ImageNet(ImageNetConfig(source=source, classes=3, **sizes), 1, tmp_path).load()  # type: ignore[arg-type]
    else:
        write_cifar_pickles(tmp_path / "pets", classes=10, count=10)

        def opened(source: str) -> Samples:
            if kind == "sim":
                config = Cifar10DvsSimConfig(source=source, per_class=2, folds=2, image_size=16)
                made: Cifar | Cifar10DvsSim = Cifar10DvsSim(config, 2, tmp_path)
            else:
                made = Cifar(Cifar10Config(source=source), 1, tmp_path)
            made.prepare_workers = 1
            return made.load()

    count = len(opened(str(tmp_path / "pets")).labels)
    shutil.rmtree(tmp_path / "pets")
    assert len(opened(str(tmp_path / "pets")).labels) == count
    with pytest.raises(UserError, match=r"(?s)does not exist.*Prepared from"):
        opened(str(tmp_path / "pet"))


def test_sets_of_earlier_versions_record_the_path_that_was_shown(tmp_path: Path) -> None:
    archive = pack(write_and_name(tmp_path / "files"), tmp_path / "pets.zip", "top/")
    folder = load(tmp_path, archive).folder
    assert folder is not None
    meta = json.loads((folder / "meta.json").read_text())
    for name in ("path", "path_in_data_dir"):
        del meta["facts"][name]
    (folder / "meta.json").write_text(json.dumps(meta))
    archive.unlink()
    assert len(load(tmp_path, archive).labels) == 18
    with pytest.raises(UserError, match="does not exist"):
        load(tmp_path, tmp_path / "cats.zip")


def write_and_name(folder: Path) -> Path:
    write_class_folders(folder)
    return folder


def test_sets_of_other_sources_are_never_called_old(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Both are in use; only data sets of earlier versions of the same files can be deleted."""
    for name in ("pets", "birds"):
        write_class_folders(tmp_path / name)
    with caplog.at_level("INFO"):
        load(tmp_path, tmp_path / "pets")
        load(tmp_path, tmp_path / "birds")
    assert "can be deleted" not in caplog.text
    (tmp_path / "birds" / "train" / "ant" / "new.png").write_bytes(encoded(pixels(99)))
    with caplog.at_level("INFO"):
        load(tmp_path, tmp_path / "birds")
    (told,) = (record.getMessage() for record in caplog.records if "can be deleted" in record.getMessage())
    for folder in (tmp_path / "prepared").glob("image_folder-*"):
        meta = json.loads((folder / "meta.json").read_text())
        if meta["facts"].get("path") == str(tmp_path / "pets"):
            assert str(folder) not in told
    assert told.count("image_folder-") - told.count("image_folder-split-") == 1


def test_an_empty_source_is_not_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_class_folders(tmp_path / "pets")
    monkeypatch.chdir(tmp_path / "pets")
    with pytest.raises(ValueError, match="source"):
        load(tmp_path, "")
