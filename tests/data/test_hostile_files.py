"""Files that would run code or fill the memory are reported before anything is run or unpacked."""

from __future__ import annotations

import io
import os
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gradspike.data.events.ready_frames import read_ready_frames
from gradspike.data.events.recording import BadRecordingError
from gradspike.data.events.recordings import read_recording
from gradspike.data.files import containers
from gradspike.data.files.files import Files
from gradspike.data.files.safe_pickle import load_pickle
from gradspike.data.files.text import read_text
from gradspike.data.options.pictures import Cifar10Config, ImageFolderConfig
from gradspike.data.registry import DATASETS
from gradspike.data.sets.cifar import Cifar
from gradspike.data.sets.image_folder import ImageFolder
from gradspike.errors import UserError
from helpers import event_samples as made
from helpers.data_samples import pack, write_cifar_pickles, write_class_folders

HUGE = 5 * 2**30


class Evil:
    """Creates a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)


# Pickles.


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_runs_code_is_refused_by_name(tmp_path: Path, protocol: int) -> None:
    content = pickle.dumps({"data": Evil(tmp_path / "run")}, protocol)
    with pytest.raises(ValueError, match=r"^is a pickle that calls posix\.system when loaded.*It was not run"):
        load_pickle(content)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("content", "called"),
    [
        (b"cbuiltins\neval\n(V1+1\ntR.", r"builtins\.eval"),
        (b"c__builtin__\nexec\n(V1\ntR.", r"__builtin__\.exec"),
        (b"(cnumpy.core.multiarray\nfromfile\no.", r"numpy\.core\.multiarray\.fromfile"),
        (b"(V1\niposix\nsystem\n.", r"posix\.system"),
        (b"\x80\x04\x8c\x06numpy.\x8c\x09ndarray.x\x93.", r"numpy\.\.ndarray\.x"),
        (b"cnumpy\nload\n(V/etc/passwd\ntR.", r"numpy\.load"),
    ],
)
def test_nothing_but_arrays_is_built(content: bytes, called: str) -> None:
    with pytest.raises(ValueError, match=rf"^is a pickle that calls {called} when"):
        load_pickle(content)


def test_a_call_of_what_is_built_with_wrong_arguments_is_told_in_words() -> None:
    with pytest.raises(ValueError, match=r"^cannot be unpickled \(in constructor for scalar: .*\)$") as caught:
        load_pickle(b"(cnumpy.core.multiarray\nscalar\no.")
    assert "traceback" not in str(caught.value)


def test_a_pickle_that_asks_for_a_huge_memo_is_read_in_little_memory() -> None:
    assert load_pickle(b"\x80\x02Nr\xff\xff\xff\x7f.") is None


@pytest.mark.parametrize("name", ["data_batch_3", "batches.meta"])
def test_an_evil_pickle_among_cifars(tmp_path: Path, name: str) -> None:
    write_cifar_pickles(tmp_path / "pickles")
    (tmp_path / "pickles" / name).write_bytes(pickle.dumps(Evil(tmp_path / "run"), protocol=2))
    source = Cifar(Cifar10Config(source=str(tmp_path / "pickles"), classes=3), 4, tmp_path)
    source.prepare_workers = 1
    with pytest.raises(UserError, match=rf"{name}.*is a pickle that calls posix\.system"):
        source.load()
    assert not (tmp_path / "run").exists()


def evil_pt(mark: Path) -> bytes:
    file = io.BytesIO()
    torch.save([Evil(mark), torch.tensor([1.0])], file)
    return file.getvalue()


@pytest.mark.parametrize("protocol", [None, 2, 4])
def test_evil_ready_frames(tmp_path: Path, protocol: int | None) -> None:
    data = evil_pt(tmp_path / "run") if protocol is None else pickle.dumps([Evil(tmp_path / "run"), 1], protocol)
    with pytest.raises(BadRecordingError, match=r"is a pickle that calls posix\.system when loaded"):
        read_ready_frames(data, 4, 8, "tet", "count")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("ending", ["npy", "npz"])
def test_pickled_objects_in_arrays_of_events(tmp_path: Path, ending: str) -> None:
    file = io.BytesIO()
    array = np.array([Evil(tmp_path / "run")], dtype=object)
    np.save(file, array, allow_pickle=True) if ending == "npy" else np.savez(file, t=array)
    with pytest.raises(BadRecordingError, match="contains pickled objects, which can run code"):
        read_recording(f"x.{ending}", file.getvalue())
    assert not (tmp_path / "run").exists()


# Members of gigabytes.


def claim(archive: Path, name: str, size: int) -> Path:
    """Make the directory of a zip file claim that a member has `size` bytes unpacked."""
    content = bytearray(archive.read_bytes())
    start = content.find(b"PK\1\2")
    while start >= 0:
        length = struct.unpack_from("<H", content, start + 28)[0]
        if content[start + 46 : start + 46 + length].decode().endswith(name):
            struct.pack_into("<I", content, start + 24, size)
        start = content.find(b"PK\1\2", start + 4)
    archive.write_bytes(content)
    return archive


def pets(folder: Path) -> Path:
    write_class_folders(folder / "files")
    return pack(folder / "files", folder / "files.zip")


def images(source: Path, data_dir: Path) -> ImageFolder:
    made_source = ImageFolder(ImageFolderConfig(source=str(source), image_size=32, classes=3), 1, data_dir)
    made_source.prepare_workers = 1
    return made_source


CLAIM = r"would unpack from [\d,]+ to 3,000,000,000 bytes|has 3,000,000,000 bytes; the limit is 1,073,741,824"


def test_a_picture_of_gigabytes_is_refused_by_the_zips_header(tmp_path: Path) -> None:
    archive = claim(pets(tmp_path), "train/ant/002.png", 3_000_000_000)
    with pytest.raises(UserError, match=rf"^1 unusable file:\n  .*train/ant/002\.png: ({CLAIM})"):
        images(archive, tmp_path).load()


def test_a_real_bomb_is_not_unpacked(tmp_path: Path) -> None:
    """70 MB of zeros in 70 kB, below the size limit of an image."""
    archive = pets(tmp_path)
    with zipfile.ZipFile(archive, "a", zipfile.ZIP_DEFLATED) as file:
        file.writestr("train/ant/zz.png", bytes(70 * 2**20))
    entry = Files.open(archive).find("train/ant/zz.png")
    assert entry is not None
    with pytest.raises(
        ValueError, match=r"would unpack from [\d,]+ to 73,400,320 bytes, as an archive made to fill a disk does"
    ):
        Files.open(archive).read(entry)


@pytest.mark.parametrize("member", ["data_batch_2", "batches.meta"])
def test_pickles_of_gigabytes(tmp_path: Path, member: str) -> None:
    write_cifar_pickles(tmp_path / "pickles")
    archive = claim(pack(tmp_path / "pickles", tmp_path / "c.zip", "cifar-10-batches-py/"), member, 3_000_000_000)
    source = Cifar(Cifar10Config(source=str(archive), classes=3), 4, tmp_path)
    source.prepare_workers = 1
    with pytest.raises(UserError, match=rf"{member}.*({CLAIM})"):
        source.load()


def test_lists_of_gigabytes(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("val/val_annotations.txt", "words")
    files = Files.open(claim(tmp_path / "a.zip", "annotations.txt", 3_000_000_000))
    with pytest.raises(UserError, match=rf"val_annotations\.txt cannot be read \(({CLAIM})"):
        read_text(files, files.entries()[0])


def test_recordings_of_gigabytes(tmp_path: Path) -> None:
    made.write_nmnist(tmp_path / "files")
    archive = claim(pack(tmp_path / "files", tmp_path / "n.zip"), "Train/1/00005.bin", 3_000_000_000)
    config = DATASETS.config_class("nmnist")(name="nmnist", classes=3, source=str(archive))
    source = DATASETS.implementation("nmnist")(config, 4, tmp_path)
    source.prepare_workers = 1
    with pytest.raises(UserError, match=r"00005\.bin: would unpack from 300 to 3,000,000,000 bytes"):
        source.load()


def test_an_archive_of_gigabytes_in_an_archive(tmp_path: Path) -> None:
    made.write_nmnist(tmp_path / "files")
    (tmp_path / "two").mkdir()
    for split in ("Train", "Test"):
        pack(tmp_path / "files" / split, tmp_path / f"two/{split}.zip", f"{split}/")
    archive = claim(pack(tmp_path / "two", tmp_path / "n.zip"), "Train.zip", 3_000_000_000)
    config = DATASETS.config_class("nmnist")(name="nmnist", classes=3, source=str(archive))
    with pytest.raises(UserError, match=r"Train\.zip would unpack from [\d,]+ to 3,000,000,000 bytes"):
        DATASETS.implementation("nmnist")(config, 4, tmp_path).load()


def test_arrays_of_gigabytes_in_a_recording(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    path.write_bytes(made.npz_bytes(made.recording(0)))
    with pytest.raises(ValueError, match=r"would unpack from [\d,]+ to 3,[\d,]+ bytes"):
        read_recording("x.npz", claim(path, "t.npy", 3_000_000_000).read_bytes())


def test_tensors_of_gigabytes_in_ready_frames(tmp_path: Path) -> None:
    made.write_ready_frames(tmp_path)
    path = claim(tmp_path / "train/0.pt", "data/0", 3_000_000_000)
    with pytest.raises(ValueError, match=r"would unpack from [\d,]+ to 3,[\d,]+ bytes"):
        read_ready_frames(path.read_bytes(), 4, 8, "tet", "count")


def lz4(content: bytes) -> bytes:
    """An LZ4 frame of one stored block."""
    return bytes.fromhex("04224d18 604082") + struct.pack("<I", len(content) | 1 << 31) + content + bytes(4)


def zstd(content: bytes) -> bytes:
    """A Zstandard frame of one stored block; its size is not declared."""
    return bytes.fromhex("28b52ffd 00 58") + struct.pack("<I", len(content) << 3 | 1)[:3] + content


def zstd_bomb(content: bytes) -> bytes:
    """A Zstandard frame that repeats a byte 2,048 times 65,536; it declares that it unpacks to 100 bytes."""
    block = struct.pack("<I", 65536 << 3 | 1 << 1)[:3] + b"\0"
    return bytes.fromhex("28b52ffd 20 64") + block * 2047 + struct.pack("<I", 65536 << 3 | 1 << 1 | 1)[:3] + b"\0"


def lz4_bomb(content: bytes) -> bytes:
    """An LZ4 frame of 2,048 blocks, each of which repeats a byte 65,536 times."""
    block = b"\x1f\0\x01\0" + b"\xff" * 256 + b"\xe7\x50" + bytes(5)
    return bytes.fromhex("04224d18 604082") + (struct.pack("<I", len(block)) + block) * 2048 + bytes(4)


PACKERS: dict[str, tuple[int, Callable[[bytes], bytes]]] = {"lz4": (1, lz4), "zstd": (3, zstd), "zstd high": (4, zstd)}


@pytest.mark.parametrize("packer", PACKERS)
def test_compressed_packets_are_read(packer: str) -> None:
    events = made.recording(0)
    compression, packed = PACKERS[packer]
    read = read_recording("r.aedat4", made.aedat4_bytes(events, compression=compression, packed=packed))
    assert read.t.tolist() == events.t.tolist()
    assert read.x.tolist() == events.x.tolist()


@pytest.mark.parametrize(("compression", "packed"), [(1, lz4_bomb), (2, lz4_bomb), (3, zstd_bomb), (4, zstd_bomb)])
def test_packets_of_gigabytes_are_refused_before_they_are_unpacked(
    compression: int, packed: Callable[[bytes], bytes]
) -> None:
    content = made.aedat4_bytes(made.recording(0), compression=compression, packed=packed)
    with pytest.raises(BadRecordingError, match=r"a packet of [\d,]+ bytes unpacks to up to 13\d,\d{3},\d{3} bytes"):
        read_recording("r.aedat4", content)


def test_many_packets_that_unpack_to_gigabytes_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gradspike.data.events.packets.BOMB_BYTES", 500)
    monkeypatch.setattr("gradspike.data.events.packets.BOMB_RATIO", 0.1)
    with pytest.raises(BadRecordingError, match=r"the file of [\d,]+ bytes unpacks to up to \d+ bytes"):
        read_recording("r.aedat4", made.aedat4_bytes(made.recording(0)))


@pytest.mark.parametrize(
    ("compression", "packed", "said"),
    [
        (1, zstd, "is not compressed with LZ4"),
        (3, lz4, "is not compressed with Zstandard"),
        (1, lambda content: lz4(content)[:20], "ends inside a packet, or a packet is damaged"),
        (3, lambda content: zstd(content)[:-1] + zstd(content)[:8], "is not compressed with Zstandard"),
        (3, lambda content: zstd(content)[:7], "ends inside a packet, or a packet is damaged"),
    ],
)
def test_packets_that_are_not_what_the_header_states(
    compression: int, packed: Callable[[bytes], bytes], said: str
) -> None:
    with pytest.raises(BadRecordingError, match=said):
        read_recording("r.aedat4", made.aedat4_bytes(made.recording(0), compression=compression, packed=packed))


@pytest.mark.parametrize("ending", ["gz", "bz2", "xz"])
def test_a_compressed_tar_is_refused_at_the_header_of_the_bomb(tmp_path: Path, ending: str) -> None:
    """Refused without reading the member, whose bytes are missing."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as file:
        info = tarfile.TarInfo("train/ant/0.png")
        info.size = 10
        file.addfile(info, io.BytesIO(b"0123456789"))
        info = tarfile.TarInfo("train/ant/1.png")
        info.size = HUGE
        content.write(info.tobuf())
        file.offset = content.tell()
    packer: Callable[[bytes], bytes] = __import__({"gz": "gzip", "bz2": "bz2", "xz": "lzma"}[ending]).compress
    path = tmp_path / f"a.tar.{ending}"
    path.write_bytes(packer(content.getvalue()))
    with pytest.raises(UserError, match=r"its member train/ant/1\.png would unpack from [\d,]+ to 5,368,709,120 bytes"):
        images(path, tmp_path).load()


def test_a_sparse_member_of_a_tar_is_not_read_as_its_neighbours(tmp_path: Path) -> None:
    """It uses little space and claims much: its bytes in the archive are not the file's content."""
    write_class_folders(tmp_path / "files")
    sparse = tmp_path / "files/train/ant/zz.png"
    with sparse.open("wb") as file:
        file.truncate(10 * 2**20)
        file.write(b"x")
    made_by_tar = os.system(f"cd {tmp_path}/files && tar --sparse --format=gnu -cf ../a.tar .")
    if made_by_tar:
        pytest.skip("needs GNU tar")
    with pytest.raises(UserError, match=r"train/ant/zz\.png: is a sparse file inside an archive"):
        images(tmp_path / "a.tar", tmp_path).load()


def test_a_sparse_picture_of_gigabytes_in_a_folder(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "files")
    with (tmp_path / "files/train/ant/zz.png").open("wb") as file:
        file.truncate(HUGE)
    with pytest.raises(UserError, match=r"zz\.png: has 5,368,709,120 bytes; the limit is 1,073,741,824"):
        images(tmp_path / "files", tmp_path).load()


def test_a_pipe_among_pictures_is_not_waited_for(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "files")
    os.mkfifo(tmp_path / "files/train/ant/zz.png")
    with pytest.raises(UserError, match=r"train/ant/zz\.png: is a pipe, a socket or a device"):
        images(tmp_path / "files", tmp_path).load()


def test_data_that_pack_well_are_no_bombs() -> None:
    containers.refuse_bomb(2**30, 2**30 // 199)
    containers.refuse_bomb(60 * 2**20, 1000)
