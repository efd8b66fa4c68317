"""File names written by other systems, languages and programs."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import tarfile
import unicodedata
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from gradspike.data.files.files import Files
from gradspike.data.files.names import class_name
from gradspike.data.options.pictures import ImageFolderConfig
from gradspike.data.sets.image_folder import ImageFolder
from gradspike.data.source import Samples
from gradspike.errors import UserError
from helpers.command import ROOT
from helpers.data_samples import encoded, pixels

COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"


def load(data_dir: Path, source: Path, classes: int = 2, **options: object) -> Samples:
    config = ImageFolderConfig(source=str(source), image_size=16, classes=classes, val_fraction=0.0, **options)  # type: ignore[arg-type]
    return ImageFolder(config, 1, data_dir).load()


def write(folder: Path, splits: dict[str, tuple[str | bytes, ...]], count: int = 3) -> None:
    """Images in class folders whose names are text or bytes."""
    number = 0
    for split, classes in splits.items():
        for name in classes:
            raw = (
                os.fsencode(folder)
                + b"/"
                + split.encode()
                + b"/"
                + (name if isinstance(name, bytes) else name.encode())
            )
            os.makedirs(raw, exist_ok=True)
            for _ in range(count):
                with open(raw + b"/%d.png" % number, "wb") as file:
                    file.write(encoded(pixels(number, 16)))
                number += 1


def zip_of(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def test_one_spelling_of_two_is_one_class(tmp_path: Path) -> None:
    """Like a data set that was collected on Linux and tested on a Mac."""
    write(tmp_path / "pets", {"train": (COMPOSED, "ant"), "test": (DECOMPOSED, "ant")})
    samples = load(tmp_path, tmp_path / "pets")
    assert samples.class_names == ("ant", COMPOSED)
    assert [int((samples.labels[samples.indices(split)] == 1).sum()) for split in ("train", "test")] == [3, 3]


def test_both_spellings_in_one_split_are_one_class_too(tmp_path: Path) -> None:
    write(tmp_path / "pets", {"train": (COMPOSED, DECOMPOSED, "ant"), "test": (COMPOSED, "ant")})
    samples = load(tmp_path, tmp_path / "pets")
    assert int((samples.labels[samples.indices("train")] == 1).sum()) == 6
    assert len(set(samples.names)) == len(samples.names)


def test_a_class_that_is_spelt_otherwise_is_another(tmp_path: Path) -> None:
    assert class_name("Cafe") != class_name("cafe") != class_name(COMPOSED)
    assert class_name("\ufb01n") == "\ufb01n", "a ligature is not taken apart"


def test_names_that_are_not_utf_8_make_a_set(tmp_path: Path) -> None:
    write(tmp_path / "pets", {"train": (b"caf\xe9", "ant"), "test": (b"caf\xe9", "ant")})
    samples = load(tmp_path, tmp_path / "pets")
    assert os.fsencode(samples.class_names[1]) == b"caf\xe9"
    assert os.fsencode(samples.names[-1]).startswith(b"test/caf\xe9/")
    again = load(tmp_path, tmp_path / "pets")
    assert again.class_names == samples.class_names


@pytest.mark.parametrize("environment", ["UTF-8", "C", "C, ASCII output"])
def test_the_command_prints_any_name_in_any_locale(tmp_path: Path, environment: str) -> None:
    """Its summary, its list of bad files, its contact sheet; the arrays are the same in every locale."""
    source = tmp_path / "odd"
    write(source, {"train": (b"lat\xe9", COMPOSED), "test": (b"lat\xe9", DECOMPOSED)})
    with open(os.fsencode(source) + b"/train/lat\xe9/\xff\xc3\xa9.png", "wb"):
        pass
    variables = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    if environment != "UTF-8":
        variables |= {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    if "ASCII" in environment:
        variables |= {"PYTHONIOENCODING": "ascii"}
    words = [
        "prepare",
        "dataset=image_folder",
        f"dataset.source={source}",
        "dataset.image_size=16",
        "dataset.classes=2",
    ]
    words += ["dataset.on_bad_file=skip", f"data_dir={tmp_path}", "workers=1", f"preview={tmp_path / 'p.png'}"]
    finished = subprocess.run([sys.executable, "-m", "gradspike", *words], capture_output=True, env=variables, cwd=ROOT)
    output, errors = finished.stdout.decode("utf-8"), finished.stderr.decode("utf-8")
    assert finished.returncode == 0, errors
    assert "Traceback" not in errors
    assert "samples    train 4, val 2, test 6" in output
    assert "is empty (0 bytes)" in output
    assert r"lat\udce9" in output
    assert ("caf\\xe9" if "ASCII" in environment or environment == "C" else COMPOSED) in output
    samples = load(tmp_path, source, on_bad_file="skip")
    assert samples.class_names[0] == COMPOSED
    assert len(list((tmp_path / "prepared").glob("image_folder-[0-9a-f]*"))) == 1, "prepared again in another locale"


# Archives.


def members(separator: str = "/", name: str = "ant") -> dict[str, bytes]:
    return {
        separator.join((split, name, f"{number}.png")): encoded(pixels(number, 16))
        for split in ("train", "test")
        for number in range(3)
    }


@pytest.mark.parametrize("mixed", [False, True])
def test_a_zip_with_backslashes(tmp_path: Path, mixed: bool) -> None:
    content = members("\\")
    if mixed:  # packed on Windows, completed on Linux
        content |= {f"train/bee/{number}.png": encoded(pixels(9, 16)) for number in range(2)}
        content |= {f"test/bee/{number}.png": encoded(pixels(9, 16)) for number in range(2)}
    archive = zip_of(tmp_path / "a.zip", content | {"train\\empty\\": b""})
    samples = load(tmp_path, archive, classes=2 if mixed else 1)
    assert len(samples.labels) == (10 if mixed else 6)
    assert "train/ant/0.png" in list(samples.names)


@pytest.mark.parametrize("ending", [".zip", ".tar", ".tar.gz"])
@pytest.mark.parametrize("top", ["x//", "./", ".//x/./"])
def test_empty_parts_of_names_in_archives(tmp_path: Path, ending: str, top: str) -> None:
    """Names with an empty part made the search for the samples endless."""
    content = {top + name.replace("/ant/", "//ant/"): data for name, data in members().items()}
    archive = tmp_path / f"a{ending}"
    if ending == ".zip":
        zip_of(archive, content)
    else:
        with tarfile.open(archive, "w:gz" if ending == ".tar.gz" else "w") as file:
            for name, data in content.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                file.addfile(info, io.BytesIO(data))
    samples = load(tmp_path, archive, classes=1)
    assert samples.class_names == ("ant",)
    assert sorted(samples.names) == sorted(members())
    read = Files.open(archive)
    assert [read.read(entry) for entry in read.entries()] == [members()[name] for name in sorted(members())]


@pytest.mark.parametrize("top", ["/abs/", "../", "C:\\data\\"])
def test_an_archive_of_unsafe_names_says_so(tmp_path: Path, top: str) -> None:
    archive = zip_of(tmp_path / "a.zip", {top + name: data for name, data in members().items()})
    with pytest.raises(UserError, match=r"none of its 6 files can be used: .* has a name that points outside"):
        load(tmp_path, archive, classes=1)


@pytest.mark.parametrize("ending", ["", ".tar", ".tar.gz"])
def test_backslashes_in_names_on_linux_are_letters(tmp_path: Path, ending: str) -> None:
    """In a folder, and in a tar file, which has no other separator than "/"."""
    folder = tmp_path / "files"
    for name, content in members(name="a\\b").items():
        split, _, file = name.split("/")
        for odd in (f"{split}/a\\b/x\\{file}", f"{split}/x\\..\\c/\\{file}", f"{split}/C:/{file}"):
            (folder / odd).parent.mkdir(parents=True, exist_ok=True)
            (folder / odd).write_bytes(content)
    source = folder
    if ending:
        source = tmp_path / f"a{ending}"
        with tarfile.open(source, "w:gz" if "gz" in ending else "w") as file:
            for path in sorted(folder.rglob("*.png")):
                file.add(path, path.relative_to(folder).as_posix())
    samples = load(tmp_path, source, classes=3)
    assert samples.class_names == ("C:", "a\\b", "x\\..\\c")
    assert len(samples.names) == 18
    assert "test/a\\b/x\\0.png" in list(samples.names)


def test_a_folder_of_recordings_with_backslashes(tmp_path: Path) -> None:
    from gradspike.data.registry import DATASETS
    from helpers import event_samples as made

    for split in ("train", "test"):
        for number in range(3):
            made.write(tmp_path / f"e/{split}/a\\b/r\\{number}.npz", made.npz_bytes(made.recording(number)))
    options = {"source": str(tmp_path / "e"), "classes": 1, "image_size": 16, "sensor_size": 34}
    config = DATASETS.config_class("event_folder")(name="event_folder", **options)
    samples = DATASETS.implementation("event_folder")(config, 4, tmp_path).load()
    assert samples.class_names == ("a\\b",)
    assert samples.names[0] == "test/a\\b/r\\0.npz"


def test_backslashes_do_not_lead_out_of_a_zip(tmp_path: Path) -> None:
    files = Files.open(zip_of(tmp_path / "a.zip", {"..\\evil.png": b"x", "C:\\evil.png": b"x", "good\\1.png": b"x"}))
    assert [entry.name for entry in files.entries()] == ["good/1.png"]
    assert len(files.bad()) == 2


def without_flag(archive: Path) -> Path:
    """Remove the UTF-8 flag, like programs that write UTF-8 names without it."""
    content = bytearray(archive.read_bytes())
    for mark, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        start = content.find(mark)
        while start >= 0:
            flags = struct.unpack_from("<H", content, start + place)[0] & ~0x800
            struct.pack_into("<H", content, start + place, flags)
            start = content.find(mark, start + 4)
    archive.write_bytes(content)
    return archive


def test_utf_8_that_a_zip_does_not_declare(tmp_path: Path) -> None:
    archive = without_flag(zip_of(tmp_path / "a.zip", members(name=DECOMPOSED)))
    samples = load(tmp_path, archive, classes=1)
    assert samples.class_names == (COMPOSED,)
    assert len(samples.labels) == 6


def test_code_page_437(tmp_path: Path) -> None:
    """0x82 is an e with an acute accent there; alone it is no UTF-8."""
    archive = zip_of(tmp_path / "a.zip", members(name="caf_"))
    archive.write_bytes(archive.read_bytes().replace(b"caf_", b"caf\x82"))
    samples = load(tmp_path, archive, classes=1)
    assert samples.class_names == (COMPOSED,)
    assert (np.asarray(samples.inputs[0]).transpose(1, 2, 0) == pixels(0, 16)).all()


def test_the_unicode_path_of_info_zip(tmp_path: Path) -> None:
    """For names with letters that the archive's code page lacks."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        for name, content in members(name="__").items():
            info = zipfile.ZipInfo(name)
            real = name.replace("__", "\u65e5\u672c").encode()
            field = struct.pack("<BL", 1, zlib.crc32(name.encode())) + real
            info.extra = struct.pack("<HH", 0x7075, len(field)) + field
            file.writestr(info, content)
    assert load(tmp_path, tmp_path / "a.zip", classes=1).class_names == ("\u65e5\u672c",)


def test_a_tar_is_read_as_utf_8_in_every_locale(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w", encoding="utf-8") as file:
        for name, content in members(name=COMPOSED).items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    code = (
        "import sys; from pathlib import Path; from gradspike.data.files.files import Files; "
        f"print(ascii(Files.open(Path({str(tmp_path / 'a.tar')!r})).entries()[0].name))"
    )
    variables = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "LC_ALL": "C", "PYTHONUTF8": "0"}
    variables["PYTHONCOERCECLOCALE"] = "0"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=variables, check=True)
    assert found.stdout.strip() == ascii(f"test/{COMPOSED}/0.png")


def test_spellings_are_those_of_unicode() -> None:
    assert class_name(DECOMPOSED) == COMPOSED == unicodedata.normalize("NFC", DECOMPOSED)
    assert class_name(COMPOSED.encode().decode("ascii", "surrogateescape")) == COMPOSED
