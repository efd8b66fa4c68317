"""System files in folders are never samples, in any split and any letter case, and they are counted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gradspike.data.files.files import Files
from gradspike.data.files.leavings import is_leaving
from gradspike.data.options.pictures import ImageFolderConfig
from gradspike.data.prepared.file_source import left_out_text
from gradspike.data.sets.image_folder import ImageFolder
from gradspike.data.source import Samples
from helpers.data_samples import encoded, pack, pixels, write_class_folders

LEFT = [
    "train/@eaDir/ant.png/SYNOPHOTO_THUMB_M.png",
    "train/ant/@eaDir/000.png/SYNOPHOTO_THUMB_S.png",
    "val/ant/@EADIR/000.png/SYNOPHOTO_THUMB_S.png",
    "val/bee/.thumbnails/000.png",
    "train/bee/.@__thumb/default000.png",
    "train/bee/@__thumb/000.png",
    "train/cat/.ipynb_checkpoints/000-checkpoint.png",
    "$RECYCLE.BIN/S-1-5-21/$R000.png",
    "train/$Recycle.Bin/$R000.png",
    "train/#recycle/ant/000.png",
    "test/#Recycle/000.png",
    "train/.Trash-1000/files/000.png",
    "train/lost+found/000.png",
    "test/Lost+Found/000.png",
    "__MACOSX/train/ant/._000.png",
    "train/__macosx/ant/000.png",
    "train/ant/._000.png",
    "train/ant/.DS_Store",
    "test/cat/Thumbs.db",
    "test/cat/THUMBS.DB",
    "train/Desktop.ini",
    "val/System Volume Information/000.png",
    "train/@Recycle/ant/000.png",
    "train/RECYCLER/000.png",
    "train/ant/Icon\r",
    "train/RECYCLED/000.png",
    "train/LOST.DIR/000.png",
    "test/FOUND.000/FILE0000.png",
    "train/~snapshot/000.png",
    "train/@Transcode/000.png",
    "train/ant/000.png:Zone.Identifier",
    "train/ant/@SynoResource",
    "train/Desktop DB",
    "test/cat/pspbrwse.jbf",
    "val/bee/SYNOPHOTO_THUMB_M.jpg",
    "train/cat/synofile_thumb_xl.png",
    "train/ant/Network Recycle Bin 1/000.png",
    "train/ant/@sharesnap/GMT-2026/000.png",
    "train/ant/@img_bkp_cache/000.png",
    "train/bee/_vti_cnf/000.png",
    "test/bee/DfsrPrivate/000.png",
    "train/cat/_gsdata_/000.png",
    "train/bee/Icon\uf00d",
    "train/ant/AlbumArtSmall.jpg",
    "test/ant/AlbumArt_{5FA05D35-A682-4AF6-96F7-0773E42D4D16}_Large.jpg",
]


@pytest.fixture
def pets(tmp_path: Path) -> tuple[Path, dict[str, object]]:
    """A folder with all known system files, and its images."""
    written = write_class_folders(tmp_path / "pets", counts={"train": 3, "val": 2, "test": 1})
    for number, name in enumerate(LEFT):
        path = tmp_path / "pets" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(pixels(1000 + number, 8)))
    return tmp_path / "pets", dict(written)


def load(data_dir: Path, source: Path, classes: int = 3) -> Samples:
    return ImageFolder(ImageFolderConfig(source=str(source), image_size=32, classes=classes), 1, data_dir).load()


@pytest.mark.parametrize("ending", ["", ".zip", ".tar", ".tar.gz"])
def test_no_thumbnail_becomes_a_sample(
    pets: tuple[Path, dict[str, object]], tmp_path: Path, ending: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder, written = pets
    source = pack(folder, tmp_path / f"packed{ending}") if ending else folder
    with caplog.at_level("INFO"):
        samples = load(tmp_path, source)
    assert sorted(samples.names) == sorted(written)
    assert samples.class_names == ("ant", "bee", "cat")
    assert samples.folder is not None
    left_out = json.loads((samples.folder / "meta.json").read_text())["facts"]["left_out"]
    assert left_out["@eaDir"] == 2
    assert left_out["@EADIR"] == 1
    assert left_out["._*"] + left_out["__MACOSX"] == 2
    assert sum(left_out.values()) == len({top(name) for name in LEFT})
    assert caplog.text.count("Left out, because they are not samples") == 1


def top(name: str) -> str:
    parts = name.split("/")
    place = next(place for place, part in enumerate(parts) if is_leaving(part))
    return "/".join(parts[: place + 1])


def test_names_of_classes_are_not_taken_for_leavings() -> None:
    for name in ("ant", "recycled", "trash", "thumbs", "icon", "lost", "found", "_x", "#1", "@home", "$", "git", "tmp"):
        assert not is_leaving(name)
    for name in ("syno", "synophoto", "recycle bin", "network", "index_thumb_1", "albumart"):
        assert not is_leaving(name)


def test_an_archive_that_was_read_before_leavings_were_known_is_listed_again(tmp_path: Path) -> None:
    """Its stored fingerprint covers the thumbnails, and so does the set that was prepared from them."""
    write_class_folders(tmp_path / "pets")
    archive = pack(tmp_path / "pets", tmp_path / "pets.zip")
    before = load(tmp_path, archive)
    (record,) = (tmp_path / "prepared").glob(".source-*.json")
    stored = json.loads(record.read_text())
    del stored["listing_version"]
    record.write_text(json.dumps({**stored, "fingerprint": "of an earlier listing"}))
    assert load(tmp_path, archive).folder == before.folder
    assert json.loads(record.read_text())["listing_version"] >= 2


def test_an_unreadable_recycle_bin_is_not_entered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    write_class_folders(tmp_path / "pets", size=8)
    (tmp_path / "pets" / "lost+found").mkdir()
    scan = os.scandir

    def refusing(path: Path) -> object:
        if Path(path).name == "lost+found":
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", refusing)
    files = Files.open(tmp_path / "pets")
    assert len(files.entries()) == 18
    assert files.ignored() == {"lost+found": 1}


def test_control_characters_in_names_are_printed_as_escapes() -> None:
    assert left_out_text({"Icon\r": 2, "a\x1b[2J": 1}) == "Icon\\r (2), a\\x1b[2J (1)"
