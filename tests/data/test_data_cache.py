"""Prepared data sets are never stale, half written or silently damaged; unusable folders are reported."""

from __future__ import annotations

import errno
import json
import logging
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gradspike.data.files.data_dir import check_data_dir
from gradspike.data.options.pictures import DigitsConfig
from gradspike.data.prepared.cache import prepared
from gradspike.data.prepared.digests import DamagedError
from gradspike.data.sets.digits import Digits
from gradspike.errors import UserError
from helpers.limits import no_file_can_be_opened

SLOW_BUILDER = """
import sys, time
from pathlib import Path
import numpy as np
from gradspike.data.prepared.cache import prepared
folder = Path(sys.argv[1])

def build(partial):
    np.save(partial / "a.npy", np.arange(1000))
    with (folder / "builds").open("a") as file:
        file.write("x")
    time.sleep(float(sys.argv[2]))
    np.save(partial / "b.npy", np.ones(10))
    return {"answer": 42}

opened = prepared(folder, "slow", {"version": 1}, build)
print(opened.facts["answer"], int(opened.arrays["a"].sum()))
"""


def start(folder: Path, seconds: float) -> subprocess.Popen[str]:
    source = str(Path(__file__).parents[2] / "src")
    environment = {**os.environ, "PYTHONPATH": source}
    command = [sys.executable, "-c", SLOW_BUILDER, str(folder), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def builder(folder: Path) -> dict[str, int]:
    np.save(folder / "a.npy", np.arange(100))
    np.save(folder / "b.npy", np.zeros((3, 4), dtype=np.uint8))
    return {"answer": 42}


def only_set(data_dir: Path) -> Path:
    (folder,) = (path for path in (data_dir / "prepared").iterdir() if path.is_dir())
    return folder


def test_a_set_that_this_process_cannot_read_is_not_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It was built again, which takes hours, because of too many open files."""

    def never(folder: Path) -> dict[str, int]:
        raise AssertionError("built again")

    kept = prepared(tmp_path, "set", {"version": 1}, builder).folder
    with pytest.raises(OSError, match="Too many open files"), no_file_can_be_opened():
        prepared(tmp_path, "set", {"version": 1}, never)

    def denied(path: Path, **options: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(np, "load", denied)  # a mode says nothing to root
    with pytest.raises(UserError, match=rf"^{kept}/[ab]\.npy: cannot be read \(Permission denied\)\.$"):
        prepared(tmp_path, "set", {"version": 1}, never)
    assert kept.is_dir()
    assert "damaged" not in caplog.text


def test_a_set_is_built_once_and_then_opened(tmp_path: Path) -> None:
    first = prepared(tmp_path, "set", {"version": 1}, builder)

    def never(folder: Path) -> dict[str, int]:
        raise AssertionError("built again")

    second = prepared(tmp_path, "set", {"version": 1}, never)
    assert second.folder == first.folder
    assert second.facts == {"answer": 42}
    assert isinstance(second.arrays["a"], np.memmap)
    assert (second.arrays["a"] == np.arange(100)).all()
    assert not second.arrays["a"].flags.writeable
    second.verify()


def test_another_key_is_another_set(tmp_path: Path) -> None:
    one = prepared(tmp_path, "set", {"version": 1, "option": {"a": 1}}, builder)
    two = prepared(tmp_path, "set", {"version": 1, "option": {"a": 2}}, builder)
    assert one.folder != two.folder


def truncate(folder: Path) -> None:
    with (folder / "a.npy").open("r+b") as file:
        file.truncate(400)


def wrong_shape(folder: Path) -> None:
    np.save(folder / "b.npy", np.zeros((4, 3), dtype=np.uint8))


def garbage(folder: Path) -> None:
    path = folder / "b.npy"
    path.write_bytes(b"x" * path.stat().st_size)


def other_key(folder: Path) -> None:
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps({**meta, "key": {"version": 2}}))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "truncated array": truncate,
    "empty array": lambda folder: (folder / "a.npy").write_bytes(b""),
    "missing array": lambda folder: (folder / "a.npy").unlink(),
    "other shape of the same size": wrong_shape,
    "bytes that are no array": garbage,
    "truncated meta.json": lambda folder: (folder / "meta.json").write_text('{"key": '),
    "missing meta.json": lambda folder: (folder / "meta.json").unlink(),
    "meta.json of another set": other_key,
    "meta.json that is a list": lambda folder: (folder / "meta.json").write_text("[]"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_set_is_reported_and_rebuilt(tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str) -> None:
    prepared(tmp_path, "set", {"version": 1}, builder)
    DAMAGES[damage](only_set(tmp_path))
    with caplog.at_level(logging.WARNING):
        again = prepared(tmp_path, "set", {"version": 1}, builder)
    assert "damaged" in caplog.text
    assert str(again.folder) in caplog.text
    assert (again.arrays["a"] == np.arange(100)).all()
    again.verify()


def test_a_changed_byte_is_found_by_the_checksum(tmp_path: Path) -> None:
    opened = prepared(tmp_path, "set", {"version": 1}, builder)
    with (opened.folder / "a.npy").open("r+b") as file:
        file.seek(-3, os.SEEK_END)
        file.write(b"\xff")
    with pytest.raises(DamagedError, match=r"a\.npy"):
        opened.verify()


def test_truncated_digits_come_back_with_the_same_bytes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = Digits(DigitsConfig(), 4, tmp_path)
    before = np.array(source.load().inputs)
    path = only_set(tmp_path) / "inputs.npy"
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
    after = source.load()
    assert "inputs.npy" in caplog.text
    assert (after.inputs == before).all()


def test_a_build_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fails(folder: Path) -> dict[str, int]:
        builder(folder)
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        prepared(tmp_path, "set", {"version": 1}, fails)
    assert not [path for path in (tmp_path / "prepared").iterdir() if path.is_dir()]


def test_a_full_disk_is_an_error_for_the_user(tmp_path: Path) -> None:
    def full(folder: Path) -> dict[str, int]:
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match="No space left on device"):
        prepared(tmp_path, "set", {"version": 1}, full)


def test_two_processes_at_once_build_once_and_agree(tmp_path: Path) -> None:
    processes = [start(tmp_path, 0.5) for _ in range(2)]
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert outputs == ["42 499500\n"] * 2
    assert (tmp_path / "builds").read_text() == "x"


def test_a_killed_build_is_begun_again(tmp_path: Path) -> None:
    process = start(tmp_path, 60)
    deadline = time.monotonic() + 60
    while not (tmp_path / "builds").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    second = start(tmp_path, 0)
    assert second.communicate(timeout=60)[0] == "42 499500\n"
    assert [path.name[0] for path in (tmp_path / "prepared").iterdir() if path.is_dir()] == ["s"], (
        "a partial set is left"
    )


def test_data_dir_is_made_but_not_its_parents(tmp_path: Path) -> None:
    assert check_data_dir(tmp_path / "new").is_dir()
    assert check_data_dir(str(tmp_path / "new")).is_dir()
    with pytest.raises(UserError, match="mkdir -p") as error:
        check_data_dir(tmp_path / "not" / "there")
    assert str(tmp_path / "not" / "there") in str(error.value)
    assert not (tmp_path / "not").exists()
    with pytest.raises(UserError) as error:
        check_data_dir(tmp_path / "it's" / "there")
    assert shlex.split(str(error.value).partition("run: ")[2]) == ["mkdir", "-p", str(tmp_path / "it's" / "there")]


def test_data_dir_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        check_data_dir(tmp_path / "file")
    with pytest.raises(UserError):
        check_data_dir(tmp_path / "file" / "below")


def test_data_dir_that_cannot_be_written_to() -> None:
    """It may contain prepared data already, as on a cluster's shared disk; only preparing more is refused."""
    read_only = Path("/proc")  # permissions do not stop the super-user, under whom tests often run; this does
    if not read_only.is_dir():
        pytest.skip("needs a folder that nobody can write to")
    assert check_data_dir(read_only) == read_only
    with pytest.raises(UserError, match=r"Preparing 'set' in /proc/prepared failed"):
        prepared(read_only, "set", {"version": 1}, lambda folder: {})


def test_checking_a_folder_and_options_imports_nothing_heavy() -> None:
    code = (
        "import sys; import gradspike.data.files.data_dir, gradspike.data.registry; "
        "print([name for name in ('torch', 'numpy', 'lightning', 'tonic', 'sklearn') if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert output.stdout == "[]\n"


@pytest.mark.parametrize("reason", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL])
def test_a_file_system_without_locks_is_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, reason: int
) -> None:
    def without(file: object, operation: int) -> None:
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr("fcntl.flock", without)
    with caplog.at_level(logging.INFO):
        assert prepared(tmp_path, "set", {"version": 1}, builder).facts == {"answer": 42}
    assert caplog.text.count("has no file locks") == 1
    assert os.strerror(reason) in caplog.text
    assert "Another process" not in caplog.text


def test_a_lock_that_is_held_is_waited_for(tmp_path: Path) -> None:
    process = start(tmp_path, 1.5)
    deadline = time.monotonic() + 60
    while not (tmp_path / "builds").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    second = subprocess.run(
        [
            sys.executable,
            "-c",
            "import logging; logging.basicConfig(level='INFO')\n" + SLOW_BUILDER,
            str(tmp_path),
            "0",
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")},
        timeout=60,
    )
    assert second.stdout == "42 499500\n"
    assert second.stderr.count("Another process is preparing 'slow'. Waiting for it.") == 1
    assert process.communicate(timeout=60)[0] == "42 499500\n"
    assert (tmp_path / "builds").read_text() == "x"
