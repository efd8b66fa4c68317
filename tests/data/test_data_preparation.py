"""Preparation in parts: the same bytes for any number of processes and interruptions."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from gradspike.data.files.bad_file import BadFile
from gradspike.data.prepared.parts import PARTS, Names, Part, build_in_parts, encode_names, refuse_bad_files
from gradspike.errors import UserError
from helpers.command import ROOT
from helpers.data_samples import pack, write_class_folders


def squares(items: Sequence[int], bad: tuple[int, ...] = (), log: Path | None = None) -> Part:
    """Part of a toy set: wide where numbers are large, and of an uneven number of bytes for each item."""
    if log is not None:
        with log.open("a") as file:
            file.write("x" * len(items))
    good = [item for item in items if item not in bad]
    dtype = np.uint8 if max(good, default=0) < 16 else np.int16
    return Part(
        {
            "square": np.array([[item, item * item] for item in good], dtype=dtype).reshape(-1, 2),
            "names": encode_names(str(item) * item for item in good),
            "rows": np.repeat(np.array(good, dtype=np.int64), good),
        },
        tuple(BadFile(f"item/{item}", "is bad") for item in items if item in bad),
    )


def build(folder: Path, count: int = 40, workers: int = 1, **options: object) -> tuple[BadFile, ...]:
    work = partial(squares, **options)  # type: ignore[arg-type]
    folder.mkdir(exist_ok=True)
    return build_in_parts(folder, range(count), work, part_size=7, workers=workers, title="squares", on_bad_file="skip")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.npy"))}


def test_arrays_are_joined_in_the_order_of_the_items(tmp_path: Path) -> None:
    assert build(tmp_path) == ()
    arrays = {path.stem: np.load(path) for path in tmp_path.glob("*.npy")}
    assert arrays["square"].tolist() == [[n, n * n] for n in range(40)]
    assert arrays["square"].dtype == np.int16, "the widest type of the parts"
    assert list(Names(arrays["names"])) == [str(n) * n for n in range(40)]
    assert arrays["rows"].tolist() == [n for n in range(40) for _ in range(n)]


def test_several_processes_make_the_same_bytes_as_one(tmp_path: Path) -> None:
    build(tmp_path / "one")
    build(tmp_path / "two", workers=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_bad_items_are_left_out_wherever_they_stand(tmp_path: Path) -> None:
    bad = (0, 13, *range(14, 21), 39)  # a whole part among them
    assert [file.path for file in build(tmp_path, bad=bad)] == [f"item/{item}" for item in bad]
    assert np.load(tmp_path / "square.npy")[:, 0].tolist() == [n for n in range(40) if n not in bad]
    with pytest.raises(UserError, match="no usable file"):
        build(tmp_path / "none", bad=tuple(range(40)))


def test_an_error_names_several_bad_files_and_stops_early(tmp_path: Path) -> None:
    log = tmp_path / "log"
    folder = tmp_path / "set"
    folder.mkdir()
    work = partial(squares, bad=tuple(range(3, 400, 2)), log=log)
    options = {"part_size": 7, "workers": 1, "title": "squares", "on_bad_file": "error"}
    with pytest.raises(UserError) as error:
        build_in_parts(folder, range(400), work, **options)  # type: ignore[arg-type]
    assert all(f"item/{item}: is bad" in str(error.value) for item in range(3, 23, 2))
    assert "item/23" not in str(error.value)
    assert "and possibly more" in str(error.value)
    known = int(re.match(r"At least (\d+) unusable files", str(error.value))[1])  # type: ignore[index]
    assert f"... and {known - 10} more" in str(error.value) if known > 10 else known == 10
    assert "dataset.on_bad_file=skip" in str(error.value)
    assert len(log.read_text()) < 30, "went on long after ten bad files"


def test_the_number_of_bad_files_is_that_of_all_of_them() -> None:
    bad = [BadFile(f"item/{number}", "is bad") for number in range(500)]
    with pytest.raises(UserError, match=r"^500 unusable files") as error:
        refuse_bad_files(bad, "error")
    assert str(error.value).count("item/") == 10
    assert "... and 490 more" in str(error.value)
    assert "may be more" not in str(error.value)
    with pytest.raises(UserError, match=r"^1 unusable file"):
        refuse_bad_files(bad[:1], "error")
    with pytest.raises(UserError, match=r"^10 unusable files") as error:
        refuse_bad_files(bad[:10], "error")
    assert "more" not in str(error.value)


def test_what_is_done_is_not_done_again(tmp_path: Path) -> None:
    log, folder = tmp_path / "log", tmp_path / "set"
    build(folder, log=log)
    before = contents(folder)
    assert len(log.read_text()) == 40
    build(folder, log=log)
    assert len(log.read_text()) == 40
    (folder / "square.npy").unlink()  # its parts went when they were joined
    build(folder, log=log)
    assert len(log.read_text()) == 80
    assert contents(folder) == before


def test_parts_of_other_items_are_not_used(tmp_path: Path) -> None:
    build(tmp_path, count=40)
    build(tmp_path, count=30)
    assert np.load(tmp_path / "square.npy")[:, 0].tolist() == list(range(30))


def test_a_part_that_was_cut_off_is_made_again(tmp_path: Path) -> None:
    build(tmp_path / "whole")
    folder = tmp_path / "cut"
    with pytest.raises(OSError, match="stop"):
        _stopped(folder, after=3)
    part = folder / PARTS / "000001" / "square.npy"
    part.write_bytes(part.read_bytes()[:-1])
    build(folder)
    assert contents(folder) == contents(tmp_path / "whole")


def test_a_finished_part_whose_bits_flipped_is_prepared_again(tmp_path: Path) -> None:
    build(tmp_path / "whole")
    folder = tmp_path / "stopped"
    with pytest.raises(OSError, match="stop"):
        _stopped(folder, after=4)
    part = folder / PARTS / "000002" / "square.npy"
    content = part.read_bytes()
    part.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(UserError, match=r"000002/square\.npy is damaged.*start again"):
        build(folder)
    build(folder)
    assert contents(folder) == contents(tmp_path / "whole")


def stops(items: Sequence[int], at: int) -> Part:
    if at in items:
        raise OSError("stop")
    return squares(items)


def _stopped(folder: Path, after: int) -> None:
    folder.mkdir()
    work = partial(stops, at=after * 7)
    build_in_parts(folder, range(40), work, part_size=7, workers=1, title="", on_bad_file="skip")


@pytest.mark.parametrize("copied", [0, 1, 3])
def test_joining_goes_on_where_it_was_stopped(tmp_path: Path, copied: int) -> None:
    """The state after a kill: some parts copied and deleted, the next one half written."""
    build(tmp_path / "whole")
    before = contents(tmp_path / "whole")
    folder = tmp_path / "stopped"
    with pytest.raises(OSError, match="stop"):
        _stopped(folder, after=5)
    joined = before["square.npy"]
    start = len(joined) - 40 * 4
    (folder / "square.npy.joining").write_bytes(joined[: start + 7 * 4 * copied + 5])
    for number in range(copied):
        (folder / PARTS / f"{number:06d}" / "square.npy").unlink()
    build(folder)
    assert contents(folder) == before


def test_too_little_space_is_reported_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"too little space: about .* TB needed, .* free"):
        build_in_parts(
            tmp_path,
            range(40),
            squares,
            part_size=7,
            workers=1,
            title="",
            on_bad_file="skip",
            bytes_per_item=10**15,
        )
    assert not list(tmp_path.glob("*.npy"))


def test_names_keep_any_character(tmp_path: Path) -> None:
    names = ["ä/ö.png", "", "日本/x.png", os.fsdecode(b"\xff.png"), "a" * 300]
    np.save(tmp_path / "names.npy", encode_names(names))
    stored = Names(np.load(tmp_path / "names.npy", mmap_mode="r"))
    assert list(stored) == names
    assert list(stored[1:3]) == names[1:3]
    assert stored[-1] == names[-1]


# Whole preparations by real processes.

COMMAND = """
import sys
from pathlib import Path
from gradspike.data.options.pictures import ImageFolderConfig
from gradspike.data.pictures import source as picture_source
from gradspike.data.sets.image_folder import ImageFolder
picture_source.PART_SIZE = 20
if __name__ == "__main__":
    config = ImageFolderConfig(source=sys.argv[1], image_size=24, classes=3)
    source = ImageFolder(config, 4, Path(sys.argv[2]))
    source.prepare_workers = int(sys.argv[3])
    samples = source.load()
    print(len(samples.labels), int(samples.inputs.astype("int64").sum()))
"""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A zip of 420 images."""
    place = tmp_path_factory.mktemp("pictures")
    write_class_folders(place / "files", size=48, counts={"train": 100, "test": 40})
    return pack(place / "files", place / "pictures.zip")


@pytest.fixture(scope="module")
def unbroken(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    data_dir = tmp_path_factory.mktemp("unbroken")
    finish(start(pictures, data_dir))
    return prepared_bytes(data_dir)


def start(pictures: Path, data_dir: Path, workers: int = 1, file_size: int | None = None) -> subprocess.Popen[str]:
    limit = [] if file_size is None else ["prlimit", f"--fsize={file_size}"]
    return subprocess.Popen(
        [*limit, sys.executable, "-c", COMMAND, str(pictures), str(data_dir), str(workers)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"},
    )


def finish(process: subprocess.Popen[str]) -> str:
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return output


def prepared_bytes(data_dir: Path) -> dict[str, bytes]:
    """The arrays of all finished sets of a folder."""
    return {
        str(path.relative_to(data_dir)): path.read_bytes() for path in sorted(data_dir.glob("prepared/image*/*.npy"))
    }


def parts_of(data_dir: Path) -> list[Path]:
    return list(data_dir.glob(f"prepared/.image_folder-*.partial/{PARTS}/[0-9]*/part.json"))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_preparation_goes_on_and_ends_with_the_same_bytes(
    pictures: Path, unbroken: dict[str, bytes], tmp_path: Path, workers: int
) -> None:
    process = start(pictures, tmp_path, workers)
    deadline = time.monotonic() + 60
    while len(parts_of(tmp_path)) < 4 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    done = len(parts_of(tmp_path))
    assert 4 <= done < 21, "it was not killed in its midst"
    assert not prepared_bytes(tmp_path)
    kept = {path: path.stat().st_mtime_ns for path in parts_of(tmp_path)}
    inside = next(iter(kept)).parents[2]
    finish(start(pictures, tmp_path, workers))
    assert prepared_bytes(tmp_path) == unbroken
    assert not inside.exists(), "the partial set is left"


def test_two_processes_at_once_finish_with_one_set(pictures: Path, unbroken: dict[str, bytes], tmp_path: Path) -> None:
    processes = [start(pictures, tmp_path) for _ in range(2)]
    outputs = [finish(process) for process in processes]
    assert outputs[0] == outputs[1]
    assert prepared_bytes(tmp_path) == unbroken


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 512 kB; skips where none can be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here (needs root)")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_is_reported_with_the_space_needed_and_leaves_no_partial_set(
    pictures: Path, unbroken: dict[str, bytes], small_disk: Path
) -> None:
    """420 images of 24x24 are 726 kB."""
    process = start(pictures, small_disk)
    _, errors = process.communicate(timeout=120)
    assert process.returncode != 0
    assert re.search(r"too little space: about 726 kB needed, 5\d\d kB free", errors)
    subprocess.run(["mount", "-o", "remount,size=900k", str(small_disk)], check=True)
    # Enough by the estimate, but not with all that is written.
    process = start(pictures, small_disk)
    _, errors = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "UserError: No space left on device" in errors or "failed: No space left on device" in errors
    assert not prepared_bytes(small_disk)
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    finish(start(pictures, small_disk))
    assert prepared_bytes(small_disk) == unbroken


@pytest.mark.skipif(shutil.which("prlimit") is None, reason="needs prlimit (util-linux)")
def test_a_file_that_may_not_grow_leaves_the_parts_for_later(
    pictures: Path, unbroken: dict[str, bytes], tmp_path: Path
) -> None:
    """A file size limit fails like a full disk, while parts are joined."""
    process = start(pictures, tmp_path, file_size=300_000)
    _, errors = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "File too large" in errors
    assert not prepared_bytes(tmp_path)
    assert len(parts_of(tmp_path)) == 21
    finish(start(pictures, tmp_path))
    assert prepared_bytes(tmp_path) == unbroken
