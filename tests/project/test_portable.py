"""Differences between systems and locales: encodings of text files, and functions that some systems lack."""

from __future__ import annotations

import ast
import errno
import io
import os
import platform
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gradspike.cores import cores
from gradspike.private_names import cpu_flags
from gradspike.runs.environment import environment
from gradspike.training.device import cpu_has_bf16
from gradspike.training.parent_death import dies_with_this_process
from gradspike.training.peak_memory import peak_mb, reset_peak
from gradspike.training.watch import _keep_alive
from helpers.command import ROOT, execute

SOURCES = [*sorted((ROOT / "src").rglob("*.py")), *sorted((ROOT / "benchmarks").rglob("*.py"))]
LINUX_ONLY = ("sched_getaffinity", "sched_setaffinity", "memfd_create", "posix_fadvise", "splice", "sendfile")
LINUX_ONLY += ("pidfd_open", "eventfd", "copy_file_range", "posix_fallocate", "epoll", "setns", "unshare", "pipe2")


def calls(file: Path) -> Iterator[tuple[str, ast.Call]]:
    """Each call in a file and the name of what it calls."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            yield name, node


def opens_text_by_locale(name: str, call: ast.Call) -> bool:
    """Whether a call reads or writes text in the locale's encoding."""
    keywords = {keyword.arg for keyword in call.keywords}
    if "encoding" in keywords:
        return False
    if name in ("read_text", "write_text"):
        # The first argument of Path.read_text is its encoding; a function of ours takes files.
        own = isinstance(call.func, ast.Name)
        return not own and len(call.args) < (1 if name == "read_text" else 2)
    if name in ("run", "Popen", "check_output"):
        return bool(keywords & {"text", "universal_newlines"})
    if name in ("FileHandler", "TextIOWrapper"):
        return True
    if name not in ("open", "fdopen", "TemporaryFile", "NamedTemporaryFile"):
        return False
    words = [argument.value for argument in call.args if isinstance(argument, ast.Constant)]
    modes = [word for word in words if isinstance(word, str) and set(word) <= set("rwaxbt+")]
    plain_path_open = name == "open" and isinstance(call.func, ast.Attribute) and not call.args and not call.keywords
    return any("b" not in mode for mode in modes) or plain_path_open


def test_every_text_file_has_an_encoding() -> None:
    found = [
        f"{file.relative_to(ROOT)}:{call.lineno}"
        for file in SOURCES
        for name, call in calls(file)
        if opens_text_by_locale(name, call)
    ]
    assert found == []


def test_only_one_function_expands_a_tilde() -> None:
    """`Path.expanduser` raises RuntimeError for a folder such as ~old."""
    found = {
        str(file.relative_to(ROOT))
        for file in SOURCES
        for name, call in calls(file)
        if name == "expanduser"
        and not (isinstance(call.func, ast.Attribute) and ast.unparse(call.func) == "os.path.expanduser")
    }
    assert found == set()


def test_functions_that_macos_lacks_have_one_place() -> None:
    names = {str(file.relative_to(ROOT)) for file in SOURCES for name, _ in calls(file) if name in LINUX_ONLY}
    assert names <= {"src/gradspike/cores.py"}


def test_cores_without_binding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_STEP_ID", raising=False)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert cores() == 6
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "2")
    assert cores() == 6
    monkeypatch.setenv("SLURM_STEP_ID", "0")
    assert cores() == 2


@pytest.fixture
def no_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system without /proc."""
    real = io.open

    def opened(file: Any, *args: Any, **options: Any) -> Any:
        if str(file).startswith("/proc/"):
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(file))
        return real(file, *args, **options)

    monkeypatch.setattr("io.open", opened)


@pytest.mark.usefixtures("no_proc")
def test_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError):
        Path("/proc/cpuinfo").read_text(encoding="utf-8")
    reset_peak()
    assert 10 < peak_mb() < 100_000
    monkeypatch.setattr("gradspike.training.peak_memory._KIB", 1)  # macOS counts bytes
    assert peak_mb() < 100
    assert cpu_flags() == frozenset()
    assert environment(["train"])["processor"] == platform.processor()
    assert isinstance(cpu_has_bf16(), bool)


def test_a_processor_that_is_no_x86(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    assert isinstance(cpu_has_bf16(), bool)


def test_only_linux_can_end_children_with_their_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    monkeypatch.setattr("ctypes.CDLL", None)
    dies_with_this_process()()


def test_sockets_without_linux_options_are_kept_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT"):
        monkeypatch.delattr(socket, name, raising=False)
    with socket.socket() as one:
        _keep_alive(one)
        assert one.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


def test_files_of_linux_are_read_only_where_something_stands_in_for_them() -> None:
    places = {
        str(file.relative_to(ROOT / "src" / "gradspike"))
        for file in SOURCES
        if file.is_relative_to(ROOT / "src")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith(("/proc", "/sys/"))
    }
    assert places == {"private_names.py", "runs/environment.py", "training/peak_memory.py"}


def test_no_process_depends_on_the_way_that_the_system_starts_it() -> None:
    """Linux forks by default, macOS does not; Python 3.14 does nowhere."""
    methods = [
        ast.unparse(call.args[0]) if call.args else "the default"
        for file in SOURCES
        for name, call in calls(file)
        if name in ("get_context", "set_start_method")
        or (name in ("ProcessPoolExecutor", "Pool") and "mp_context" not in {keyword.arg for keyword in call.keywords})
    ]
    assert set(methods) == {"'spawn'"}


def test_run_log_is_utf8_in_any_locale(tmp_path: Path) -> None:
    """Also for a file name that is not valid UTF-8."""
    code = (
        "import logging, sys\n"
        "from pathlib import Path\n"
        "from gradspike.runs.run_log import RunLog\n"
        "log = logging.getLogger('gradspike'); log.addHandler(RunLog(Path(sys.argv[1]))); log.propagate = False\n"
        "log.warning('Jos\\xe9 \\u597d %s', b'caf\\xe9'.decode('utf-8', 'surrogateescape'))\n"
    )
    file = tmp_path / "run.log"
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = execute(sys.executable, "-c", code, str(file), **locale)
    assert (done.returncode, done.stderr) == (0, "")
    assert file.read_text(encoding="utf-8").endswith("José 好 caf\\udce9\n")


def test_windows_needs_no_module_of_unix_for_its_sentence() -> None:
    code = (
        "import sys\n"
        "for name in ('fcntl', 'resource', 'pwd', 'grp', 'termios'):\n"
        "    sys.modules[name] = None\n"
        "sys.platform = 'win32'\n"
        "from gradspike.__main__ import main\n"
        "sys.exit(main(['train', 'seed=1']))\n"
    )
    done = execute(sys.executable, "-c", code)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "Error: gradspike runs on Linux and macOS. On Windows, use WSL.\n"
