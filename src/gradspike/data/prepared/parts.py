"""Prepares many files in parts with several processes. Finished parts are kept, so a kill loses only unfinished ones.

A part is a folder `parts/<number>` of the partial set: one .npy file per array and, written last, part.json. When all
parts exist, each array is joined into one .npy file. A part's array is deleted after it is copied, so at most one part
is on disk twice, and a missing array means that it was copied.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from gradspike.data.files.bad_file import BadFile
from gradspike.data.prepared.disk import check_free_space, free_space, size_text
from gradspike.data.prepared.work_bar import WorkBar
from gradspike.data.prepared.work_pool import run_tasks
from gradspike.errors import UserError
from gradspike.exhausted import is_full
from gradspike.json_text import to_json
from gradspike.shown import counted

ItemT = TypeVar("ItemT")
PARTS = "parts"
SHOWN = 10
"""Number of bad files that an error lists; the preparation stops after this many."""


@dataclass(frozen=True)
class Part:
    """The result of some items: arrays to join along their first axis, and the unusable files."""

    arrays: dict[str, NDArray[Any]]
    bad: tuple[BadFile, ...] = ()


Work = Callable[[Sequence[ItemT]], Part]


def build_in_parts(
    folder: Path,
    items: Sequence[ItemT],
    work: Work[ItemT],
    *,
    part_size: int,
    workers: int,
    title: str,
    on_bad_file: Literal["error", "skip"],
    bytes_per_item: int = 0,
) -> tuple[BadFile, ...]:
    """Write the results of `work` on `items`, in order, to folder/<array>.npy. Returns the files that were left out.

    `work` gets up to `part_size` items at a time in one of `workers` processes. It must be picklable (a module-level
    function, or functools.partial of one) and depend only on its items. Parts that an earlier call with the same items
    finished in `folder` are reused. An array has the widest type of its parts. bytes_per_item: size of an item's
    result, to check the free space first; 0: no check.

    Raises UserError if the disk is full, if there are bad files and on_bad_file=error, or if no file is usable; OSError
    if the disk fails.
    """
    chunks = [items[start : start + part_size] for start in range(0, len(items), part_size)]
    parts = folder / PARTS
    _keep_only_the_same_plan(parts, items, part_size)
    finished = [_finished(parts / _name(number), folder) for number in range(len(chunks))]
    missing = [number for number, is_finished in enumerate(finished) if not is_finished]
    check_free_space(folder, bytes_per_item * sum(len(chunks[number]) for number in missing))
    bad = [file for number, is_finished in enumerate(finished) if is_finished for file in _bad(parts / _name(number))]
    done = len(items) - sum(len(chunks[number]) for number in missing)
    with WorkBar(title, total=len(items), done=done) as bar:
        tasks = ((number, partial(_make_part, parts, number, chunks[number], work)) for number in missing)
        try:
            for number in run_tasks(tasks, min(workers, len(missing))):
                bar.advance(len(chunks[number]))
                bad += _bad(parts / _name(number))
                if on_bad_file == "error" and len(bad) >= SHOWN:
                    break
        except OSError as error:
            if is_full(error):
                raise UserError(_no_space(error, folder, parts, bar.done, len(items))) from error
            raise
    refuse_bad_files(bad, on_bad_file, complete=bar.done == len(items))
    _join(folder, [parts / _name(number) for number in range(len(chunks))])
    return tuple(file for number in range(len(chunks)) for file in _bad(parts / _name(number)))


def refuse_bad_files(bad: Sequence[BadFile], on_bad_file: Literal["error", "skip"], complete: bool = True) -> None:
    """Raise UserError with a list of up to SHOWN of the `bad` files, unless there are none or on_bad_file=skip.

    complete: whether all files were checked, so there are no more bad ones.
    """
    if not bad or on_bad_file == "skip":
        return
    lines = [f"  {file.path}: {file.problem}" for file in bad[:SHOWN]]
    if len(bad) > SHOWN:
        lines.append(f"  ... and {len(bad) - SHOWN:,} more")
    if not complete:
        lines.append("  ... and possibly more: the preparation stopped here")
    count = counted(len(bad), "unusable file")
    count = count if complete else f"At least {count}"
    raise UserError(
        f"{count}:\n" + "\n".join(lines) + "\nReplace or remove them, or add "
        "dataset.on_bad_file=skip to leave them out. Finished parts are kept."
    )


class Names(Sequence[str]):
    """File names decoded on access from UTF-8 bytes [N] (`encode_names`), so a million names open instantly."""

    def __init__(self, stored: NDArray[np.bytes_]) -> None:
        self._stored = stored

    def __len__(self) -> int:
        return len(self._stored)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return Names(self._stored[index])
        return bytes(self._stored[index]).decode("utf-8", "surrogateescape")


def encode_names(names: Iterable[str]) -> NDArray[np.bytes_]:
    """Names as an array of fixed-width UTF-8 bytes, for a plain .npy file."""
    encoded = [name.encode("utf-8", "surrogateescape") for name in names]
    return np.array(encoded, dtype=f"S{max((len(name) for name in encoded), default=1) or 1}")


def _name(number: int) -> str:
    return f"{number:06d}"


def _keep_only_the_same_plan(parts: Path, items: Sequence[ItemT], part_size: int) -> None:
    """Delete parts of other items, which only changed code can leave under the same key."""
    digest = hashlib.sha256()
    for item in items:
        digest.update(repr(item).encode("utf-8", "surrogatepass") + b"\n")
    plan = {"items": len(items), "part_size": part_size, "sha256": digest.hexdigest()}
    file = parts / "plan.json"
    try:
        if json.loads(file.read_text(encoding="utf-8")) == plan:
            return
    except (OSError, ValueError):
        pass
    shutil.rmtree(parts, ignore_errors=True)
    for array in parts.parent.glob("*.npy*"):
        array.unlink()
    parts.mkdir()
    file.write_text(to_json(plan), encoding="utf-8")


def _make_part(parts: Path, number: int, items: Sequence[ItemT], work: Work[ItemT]) -> None:
    """Process some items and write the part to a folder that is renamed when complete."""
    part = work(items)
    temporary = parts / f".{_name(number)}-{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        arrays = {}
        for name, array in part.arrays.items():
            with (temporary / f"{name}.npy").open("wb") as file:
                np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)
                _settle(file)
            size = (temporary / f"{name}.npy").stat().st_size
            crc32 = zlib.crc32((temporary / f"{name}.npy").read_bytes())
            arrays[name] = {"dtype": array.dtype.str, "shape": list(array.shape), "bytes": size, "crc32": crc32}
        record = {"arrays": arrays, "bad": [asdict(file) for file in part.bad]}
        (temporary / "part.json").write_text(to_json(record), encoding="utf-8")
        place = parts / _name(number)
        shutil.rmtree(place, ignore_errors=True)
        temporary.rename(place)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _settle(file: Any) -> None:
    """Flush the bytes to disk, before a rename or deletion that relies on them."""
    file.flush()
    os.fsync(file.fileno())


def _record(part: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((part / "part.json").read_text(encoding="utf-8"))
    return record


def _bad(part: Path) -> list[BadFile]:
    return [BadFile(**file) for file in _record(part)["bad"]]


def _finished(part: Path, folder: Path) -> bool:
    """Whether a part is complete: each array is in its own file or already copied into the joined file."""
    try:
        for name, facts in _record(part)["arrays"].items():
            own = part / f"{name}.npy"
            joined = (folder / f"{name}.npy").is_file() or (folder / f"{name}.npy.joining").is_file()
            if own.stat().st_size != facts["bytes"] if own.is_file() else not joined:
                return False
    except (OSError, ValueError, LookupError):
        return False
    return True


def _no_space(error: OSError, folder: Path, parts: Path, done: int, total: int) -> str:
    """The message for a full disk, with the space still needed, estimated from the finished parts."""
    records = [_record(file.parent)["arrays"] for file in parts.glob("[0-9]*/part.json")]
    written = sum(array["bytes"] for arrays in records for array in arrays.values())
    needed = f"about {size_text(written / done * (total - done))} more needed, " if done else ""
    return (
        f"{error.strerror or 'No space left on device'} in {folder.parent}: {done:,} of {total:,} prepared, "
        f"{needed}{free_space(folder)}. Finished parts are kept: free some space and start again, or choose "
        f"another folder with data_dir=... and delete {folder}."
    )


def _check_part(array: Path, fact: Mapping[str, Any]) -> None:
    """Delete the part and raise UserError if an array of a finished part differs from what was written."""
    if fact.get("crc32") not in (None, zlib.crc32(array.read_bytes())):
        shutil.rmtree(array.parent)
        raise UserError(
            f"{array} is damaged: it does not match its checksum. Check the disk and start again: only this part "
            "is prepared again."
        )


def _join(folder: Path, parts: list[Path]) -> None:
    """Join the parts of each array, in order, into one file. Continues where an earlier call stopped."""
    records = [_record(part)["arrays"] for part in parts]
    if not any(fact["shape"][0] for arrays in records for fact in arrays.values()):
        raise UserError("There is no usable file: all are missing or damaged.")
    for name in dict.fromkeys(name for arrays in records for name in arrays):
        if (folder / f"{name}.npy").is_file():
            continue
        having = [number for number, arrays in enumerate(records) if name in arrays]
        # The shape of a part without usable items may be unknown.
        used = [number for number in having if records[number][name]["shape"][0] > 0] or having
        facts = [records[number][name] for number in used]
        shapes = {tuple(fact["shape"][1:]) for fact in facts}
        assert len(shapes) == 1, f"{name}: parts of different shapes {shapes}"
        dtype = np.result_type(*(np.dtype(fact["dtype"]) for fact in facts))
        shape = (sum(fact["shape"][0] for fact in facts), *shapes.pop())
        temporary = folder / f"{name}.npy.joining"
        temporary.touch()
        with temporary.open("r+b") as file:
            np.lib.format.write_array_header_1_0(
                file, {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
            )
            place = file.tell()
            for number, fact in zip(used, facts, strict=True):
                own = parts[number] / f"{name}.npy"
                if own.is_file():
                    _check_part(own, fact)
                    file.seek(place)
                    file.write(np.load(own, allow_pickle=False).astype(dtype, copy=False).tobytes())
                    _settle(file)
                    own.unlink()
                place += math.prod(fact["shape"]) * dtype.itemsize
        temporary.rename(folder / f"{name}.npy")
