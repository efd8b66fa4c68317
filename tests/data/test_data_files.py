"""Folders, zip and tar files give the same names and bytes, and invalid members are reported."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import tarfile
import zipfile
from pathlib import Path

import pytest

from gradspike.data.files import fingerprint as fingerprint_module
from gradspike.data.files.by_class import list_by_class
from gradspike.data.files.files import Files, MissingSourceError
from gradspike.data.files.find import find_source
from gradspike.data.files.fingerprint import fingerprint
from gradspike.errors import UserError
from helpers.data_samples import pack, write_class_folders

ENDINGS = (".zip", ".tar", ".tar.gz")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("files") / "pets"
    write_class_folders(place, size=4)
    return place


def zip_of(path: Path, members: list[tuple[str, bytes]]) -> Files:
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members:
            file.writestr(name, content)
    return Files.open(path)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("top", ["", "pets/", "./"])
def test_an_archive_reads_as_the_folder_it_was_made_of(folder: Path, tmp_path: Path, ending: str, top: str) -> None:
    plain = Files.open(folder)
    archive = Files.open(pack(folder, tmp_path / f"a{ending}", top)).within_single_folder("train", "test")
    archive = pickle.loads(pickle.dumps(archive))  # as a worker gets it
    assert [entry.name for entry in archive.entries()] == [entry.name for entry in plain.entries()]
    with archive.readable(tmp_path) as readable:
        for entry, packed in zip(plain.entries(), archive.entries(), strict=True):
            content = (folder / entry.name).read_bytes()
            assert plain.read(entry) == archive.read(packed) == readable.read(packed) == content
            assert packed.size == len(content)
        shown = tmp_path / f"a{ending}" / (top.strip("./") or "") / plain.entries()[0].name
        assert readable.shown(packed.name).startswith(str(tmp_path / f"a{ending}"))
        assert archive.shown(archive.entries()[0].name) == str(shown)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"a{ending}"], "the decompressed tar is left"


def test_entries_are_sorted_however_they_were_written(tmp_path: Path) -> None:
    files = zip_of(tmp_path / "a.zip", [("b/2", b"2"), ("a/10", b"10"), ("a/9", b"9")])
    assert [entry.name for entry in files.entries()] == ["a/10", "a/9", "b/2"]


def test_what_systems_leave_behind_is_ignored(tmp_path: Path) -> None:
    left = ["__MACOSX/train/ant/._1.png", "train/ant/.DS_Store", "train/Thumbs.db", "train/.hid/1.png", "desktop.ini"]
    archive = zip_of(tmp_path / "a.zip", [(name, b"x") for name in [*left, "train/ant/1.png"]])
    for name in [*left, "train/ant/1.png"]:
        (tmp_path / "f" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "f" / name).write_bytes(b"x")
    for files in (archive, Files.open(tmp_path / "f")):
        assert [entry.name for entry in files.entries()] == ["train/ant/1.png"]
        assert files.bad() == ()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_odd_members_are_reported_and_not_used(tmp_path: Path) -> None:
    names = ["../evil.png", "/etc/evil.png", "a/../b.png", "twice.png", "twice.png", "good.png"]
    files = zip_of(tmp_path / "a.zip", [(name, str(number).encode()) for number, name in enumerate(names)])
    assert [entry.name for entry in files.entries()] == ["good.png"]
    assert files.below("pets").bad() == files.bad(), "paths as they stand in the archive, whatever is looked at"
    problems = {file.path: file.problem for file in files.bad()}
    assert len(problems) == 4
    assert problems[f"{tmp_path}/a.zip/../evil.png"] == "has a name that points outside the archive"
    assert problems[f"{tmp_path}/a.zip/twice.png"] == "is in the archive more than once"


def test_links_in_a_tar_are_reported_and_not_used(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as file:
        info = tarfile.TarInfo("train/a.png")
        info.size = 3
        file.addfile(info, io.BytesIO(b"abc"))
        link = tarfile.TarInfo("train/b.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(link)
    files = Files.open(tmp_path / "a.tar")
    assert [files.read(entry) for entry in files.entries()] == [b"abc"]
    assert [file.problem for file in files.bad()] == ["is a link or a device inside an archive"]


def test_linked_folders_are_followed_but_not_in_circles(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "train").symlink_to(folder / "train")
    (tmp_path / "test").symlink_to(folder / "test")
    (tmp_path / "round").symlink_to(tmp_path)
    (tmp_path / "nowhere.png").symlink_to(tmp_path / "gone")
    files = Files.open(tmp_path)
    names = [entry.name for entry in files.entries()]
    assert [name for name in names if name.startswith("t")] == [entry.name for entry in Files.open(folder).entries()]
    assert not any(name.startswith("round") for name in names)
    nowhere = files.find("nowhere.png")
    assert nowhere is not None
    with pytest.raises(OSError, match="No such file"):
        files.read(nowhere)


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    zip_of(tmp_path / "a.zip", [("train/ant/1.png", b"x")])
    content = bytearray((tmp_path / "a.zip").read_bytes())
    content[6] |= 1  # the flag, in the local header and in the directory
    content[content.index(b"PK\1\2") + 8] |= 1
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.zip is encrypted \(for example train/ant/1\.png\)"):
        Files.open(tmp_path / "a.zip").entries()


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_truncated_archive_is_named(folder: Path, tmp_path: Path, ending: str) -> None:
    archive = pack(folder, tmp_path / f"a{ending}")
    content = archive.read_bytes()
    archive.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=rf"a{ending} .*(incomplete|damaged)"):
        Files.open(archive).entries()


def test_a_file_that_is_no_archive_and_one_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"nothing known")
    with pytest.raises(UserError, match="neither a folder nor a readable zip or tar file"):
        Files.open(tmp_path / "a.zip")
    with pytest.raises(MissingSourceError, match="does not exist"):
        Files.open(tmp_path / "gone")


def test_a_damaged_member_is_an_error_when_it_is_read(tmp_path: Path) -> None:
    files = zip_of(tmp_path / "a.zip", [("a.png", b"abcdefgh" * 20), ("b.png", b"12345678")])
    content = bytearray((tmp_path / "a.zip").read_bytes())
    content[content.index(b"abcdefgh") + 3] ^= 1
    (tmp_path / "a.zip").write_bytes(content)
    broken, whole = files.entries()
    assert files.read(whole) == b"12345678"
    with pytest.raises(ValueError, match=r"cannot be unpacked.*CRC"):
        files.read(broken)


def test_nothing_found_says_what_was_looked_for_and_what_to_put_where(tmp_path: Path) -> None:
    with pytest.raises(MissingSourceError) as error:
        find_source(None, tmp_path, ("pets", "pets.zip"), "The pets", "the official pets.zip")
    for words in (str(tmp_path), "pets.zip", "Put there: the official pets.zip", "dataset.source=<path>", "writable"):
        assert words in str(error.value)
    (tmp_path / "pets").mkdir()
    assert find_source(None, tmp_path, ("pets", "pets.zip"), "The pets", "them").path == tmp_path / "pets"


def test_a_listing_by_class_places_or_names_every_file(folder: Path, tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    extra = {"README.md": b"r", "train/loose.png": b"l", "train/ant/notes.gif": b"n", "train/ant/deep/x.PNG": b"d"}
    extra |= {"train/ant/notes.txt": b"n", "train/LICENSE": b"l"}
    pack(folder, archive, "pets/")
    with zipfile.ZipFile(archive, "a") as file:
        for name, content in extra.items():
            file.writestr("pets/" + name, content)
    listing = list_by_class(Files.open(archive), (".png",))
    assert list(listing.splits) == ["train", "test"]
    assert {name: len(entries) for name, entries in listing.splits["train"].items()} == {"ant": 5, "bee": 4, "cat": 4}
    assert listing.splits["train"]["ant"][-1].name == "train/ant/deep/x.PNG"
    assert [(file.path, file.problem) for file in listing.bad] == [
        (f"{archive}/pets/train/ant/notes.gif", "has none of the extensions .png"),
        (f"{archive}/pets/train/loose.png", "is not in a class folder"),
    ]


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_the_fingerprint_follows_names_sizes_and_contents(folder: Path, tmp_path: Path, kind: str) -> None:
    place = tmp_path / "pets"
    write_class_folders(place, size=4)

    def now() -> str:
        source = place if kind == "folder" else pack(place, tmp_path / "a.zip")
        return fingerprint(Files.open(source), tmp_path)

    first = now()
    assert now() == first
    picture = place / "train" / "ant" / "000.png"
    content = picture.read_bytes()
    picture.write_bytes(content[:-1] + b"x")
    os.utime(picture, (10**9, 10**9))
    changed = now()
    assert changed != first
    picture.rename(picture.with_name("100.png"))
    assert now() not in (first, changed)


def test_an_archive_in_place_of_one_with_the_same_size_and_time(tmp_path: Path) -> None:
    place = tmp_path / "pets.zip"

    def now(content: bytes) -> str:
        with zipfile.ZipFile(place, "w") as archive:
            archive.writestr("train/ant/0.png", content)
        os.utime(place, (10**9, 10**9))
        return fingerprint(Files.open(place), tmp_path)

    assert len({now(b"one"), now(b"two"), now(b"one")}) == 2


def test_a_large_folder_is_looked_through_when_it_changed_or_is_told_to(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fingerprint_module, "FEW", 5)
    place = tmp_path / "pets"
    write_class_folders(place, size=4)
    first = fingerprint(Files.open(place), tmp_path)
    picture = place / "train" / "ant" / "000.png"
    picture.write_bytes(b"changed in its place")
    assert fingerprint(Files.open(place), tmp_path) == first, "every file was looked at"
    assert fingerprint(Files.open(place), tmp_path, refresh=True) != first
    (place / "test" / "cat" / "new.png").write_bytes(b"n")
    os.utime(place / "test" / "cat", ns=(1, 1))
    assert fingerprint(Files.open(place), tmp_path) != first


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.7z", b"7z\xbc\xaf\x27\x1c", r"an archive that gradspike does not read \(7-Zip\). Unpack it \(7z x a.7z\)"),
        ("a.zip", b"7z\xbc\xaf\x27\x1c", r"\(7-Zip\)"),
        ("a.rar", b"Rar!\x1a\x07\x01\0", r"\(RAR\). Unpack it \(unrar x a.rar\)"),
        ("a.tar.zst", b"\x28\xb5\x2f\xfd", r"\(Zstandard\). Unpack it \(tar --zstd -xf a.tar.zst\)"),
        ("a.tar.lz4", b"\x04\x22\x4d\x18", r"\(LZ4\)"),
        ("a.parquet", b"PAR1", "a Parquet table, which gradspike does not read"),
        ("a.h5", b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
        ("a.zip", b"<!DOCTYPE html>", "a web page, so its download failed"),
        ("a.zip", b"version https://git-lfs.github.com/spec/v1", "a Git LFS pointer"),
        ("a.png", b"\x89PNG\r\n\x1a\n", "a single image. Give its folder"),
        ("a.json.gz", gzip.compress(b"{}" * 1000, mtime=0), r"compressed with gzip.*Unpack it \(gunzip a.json.gz\)"),
        ("a.zip", b"", r"empty \(0 bytes\)"),
    ],
)
def test_other_formats_are_named(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content + bytes(100 if content else 0))
    with pytest.raises(UserError, match=f"is .*{said}"):
        Files.open(tmp_path / name)


@pytest.mark.parametrize("target", ["/nowhere/at/all", "link"])
def test_a_broken_link_is_named(tmp_path: Path, target: str) -> None:
    (tmp_path / "link").symlink_to(target)
    with pytest.raises(UserError, match=f"is a link to {target}, which does not exist"):
        Files.open(tmp_path / "link")
