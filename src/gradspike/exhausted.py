"""Exhausted resources (memory, disk, processes): one sentence that says what to do, instead of a traceback."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gradspike.errors import UserError, causes

LIMITS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
MEMORY = re.compile(
    r"DefaultCPUAllocator|not enough memory|can(no|')t allocate memory|std::bad_alloc"
    r"|could not create a (memory object|primitive$)"
    r"|Storage size calculation overflowed|integer multiplication overflow|array is too big",
    re.IGNORECASE,
)
NO_SHARED_MEMORY = (
    "The loader's processes ran out of shared memory (/dev/shm): lower dataset.workers or dataset.batch_size, or make "
    "it larger (docker run --shm-size=8g)."
)
GPU_MEMORY = re.compile(r"(CUDA|HIP|MPS)\b.*out of memory|(CUBLAS|CUDNN|CUSOLVER|CUSPARSE)_STATUS_\w*ALLOC_FAILED")


class Exhausted(UserError):
    """A resource has run out."""


class DiskFull(Exhausted):
    """A file cannot be written: the disk, the quota or the number of files is exhausted, or files may not grow."""


class LoaderError(Exhausted):
    """The loader's processes failed: one was killed, or shared memory or file descriptors ran out."""


@contextmanager
def one_sentence(to_lower: Callable[[], str], keys: str = "dataset.") -> Iterator[None]:
    """Turn errors in the block that mean an exhausted resource into Exhausted.

    to_lower: how to use less memory, as the end of the sentence "Out of memory: ...". keys: prefix of the command's own
    `workers` and `batch_size`.
    """
    try:
        yield
    except UserError as error:
        if isinstance(error, Exhausted) and keys != "dataset.":
            raise type(error)(_with_keys(str(error), keys)) from error
        raise
    except Exception as error:
        if (said := why_exhausted(error, to_lower)) is None:
            raise
        raise Exhausted(_with_keys(said, keys)) from error


def _with_keys(said: str, keys: str) -> str:
    """A message with the command's own names of the loader's keys; folders may be called `dataset.x`."""
    return re.sub(r"(?<![\w./])dataset\.(?=(workers|batch_size)\b)", keys, said)


def why_exhausted(error: BaseException, to_lower: Callable[[], str] | None = None) -> str | None:
    """The message for an error that means an exhausted resource; None for any other error."""
    for one in causes(error):
        text = f"{type(one).__name__}: {one}"
        if "out of resource" in text:  # a Triton kernel that is too large for the GPU
            continue
        if said := loader_failure(one):
            return said
        if isinstance(one, OSError) and is_full(one):
            return full_disk(one)
        gpu = type(one).__name__ == "OutOfMemoryError" or GPU_MEMORY.search(text) is not None
        if gpu or is_out_of_memory(one):
            advice = to_lower() if to_lower is not None else "end other programs, or use a machine with more of it"
            return f"Out of memory{' on the GPU' if gpu else ''}: {advice}."
        # A failing fork raises BlockingIOError (EAGAIN).
        if "can't start new thread" in text or isinstance(one, BlockingIOError):
            what = "processes" if isinstance(one, BlockingIOError) else "threads"
            return f"No more {what} can be started: raise the limit (ulimit -u), or lower dataset.workers."
    return None


def disk_is_full(error: BaseException) -> bool:
    """Whether a system or SQLite error comes from a full disk, an exhausted quota or a file size limit."""
    return any((isinstance(one, OSError) and is_full(one)) or "disk is full" in str(one) for one in causes(error))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a Python, NumPy or torch error means that CPU memory is exhausted."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    return isinstance(error, RuntimeError | ValueError) and MEMORY.search(str(error)) is not None


def is_full(error: OSError) -> bool:
    """Whether an error means that the disk or the quota is full, or that a file may not grow (ulimit -f)."""
    # NumPy's message for a short write hides the system's error code.
    return error.errno in FULL or (error.errno is None and "requested and" in str(error))


def means_full_disk(error: BaseException) -> bool:
    """Whether an error means a full disk, also that of a program whose output it holds, such as a compiler."""
    texts = [os.strerror(code) for code in FULL]
    return any(
        (isinstance(one, OSError) and is_full(one)) or any(text in str(one) for text in texts) for one in causes(error)
    )


def raise_if_exhausted(error: BaseException) -> None:
    """Raise the error behind `error` that means a limit of this process, such as too many open files.

    For code that would otherwise call the file damaged that it could not read.
    """
    for one in causes(error):
        if isinstance(one, OSError) and one.errno in LIMITS:
            raise one


def full_disk(error: OSError) -> str:
    """The message for a full disk."""
    path = Path(error.filename) if isinstance(error.filename, str) else None
    reason = f"{path}: cannot be written ({_reason(error)})" if path is not None else _reason(error)
    return f"{reason}: {to_free(error, path)}."


def not_written(
    path: Path | str, error: OSError, *, named: str = "", verb: str = "be written", more: str = ""
) -> UserError:
    """The error for a file or folder that cannot be written: DiskFull, with what to free, or UserError.

    named: the option in front of the path (`out=`). more: the end of the message.
    """
    text = f"{named}{path}: cannot {verb} ({_reason(error)})"
    if is_full(error):
        return DiskFull(f"{text}: {to_free(error, Path(path))}.{more}")
    return UserError(f"{text}.{more}")


def to_free(error: OSError, path: Path | None) -> str:
    """What to do about a disk that is full, as the end of a sentence. path: the file that could not be written."""
    if error.errno == errno.EFBIG:
        return "raise the limit of the size of files (ulimit -f)"
    return "delete some files, the file system can hold no more" if path and no_inodes(path) else "free some space"


def no_inodes(path: Path) -> bool:
    """Whether the file system of a path, which need not exist, has as many files as it can hold."""
    for folder in (path, *path.absolute().parents):
        with suppress(OSError):
            disk = os.statvfs(folder)
            return disk.f_files > 0 and disk.f_favail == 0
    return False


def _reason(error: OSError) -> str:
    # NumPy's message for a short write has no reason.
    return error.strerror or ("No space left on device" if is_full(error) else str(error))


def loader_failure(error: BaseException) -> str | None:
    """The message for an error of the loader's processes; None for any other error.

    PyTorch reports a killed worker from a signal handler, so its error can appear anywhere in the main process.
    """
    text = f"{error}\n{error.__cause__ or ''}"
    if re.search(r"/dev/shm|shared memory|</torch_|Bus error", text):
        return NO_SHARED_MEMORY
    if re.search(r"Too many open files|received \d+ items of ancdata", text):
        return "The program ran out of open files: raise the limit (ulimit -n 65536), or lower dataset.workers."
    if re.search(r"DataLoader worker \(pid.*(killed by signal|exited unexpectedly)", text):
        found = re.search(r"killed by signal: ([\w ]+)", text)
        signal = f" (signal: {found[1].strip()})" if found else ""
        return (
            f"A process of the loader died{signal}, most often because memory ran out: lower dataset.workers or "
            "dataset.batch_size."
        )
    return None
