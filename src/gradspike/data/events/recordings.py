"""Selects the decoder for an event file.

A decoder turns the bytes of a file into a Recording in file order, and raises BadRecordingError if it cannot decode
them. `Recording.check` then validates the events in the same way for all formats.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable

from gradspike.data.events.aedat2 import VERSION_LINE, read_aedat2, version_of
from gradspike.data.events.aedat3 import read_aedat3
from gradspike.data.events.aedat4 import read_aedat4
from gradspike.data.events.arrays import read_npy, read_npz
from gradspike.data.events.nmnist_bin import read_bin
from gradspike.data.events.prophesee_dat import read_dat
from gradspike.data.events.recording import BadRecordingError, Recording


def read_recording(name: str, data: bytes, chip: str | None = None) -> Recording:
    """Read the file `name` with the content `data`; its extension selects the format. Raises BadRecordingError.

    AEDAT in .dat and .bin files is recognised by its first line: jAER's first files ended in .dat. chip: the sensor of
    AEDAT 2.0 files, or None to use the header's.
    """
    ending = os.path.splitext(name)[1].lower()
    if ending not in READERS:
        raise BadRecordingError(f"has none of the extensions {', '.join(READERS)}")
    if not data:
        raise BadRecordingError("is empty (0 bytes)")
    reader = READERS[ending]
    if ending in _UNMARKED and data.startswith(VERSION_LINE):
        reader = read_aedat
    else:
        _check_content(ending, data)
    try:
        return read_aedat(data, chip) if reader is read_aedat else reader(data)
    except BadRecordingError:
        raise
    except (ValueError, IndexError, KeyError, struct.error, OverflowError) as error:
        raise BadRecordingError(f"cannot be decoded as {ending}: {error}") from error


def read_aedat(data: bytes, chip: str | None = None) -> Recording:
    """Read AEDAT 2.0, 3.1 or 4.0, as stated in the first line."""
    version = version_of(data)
    if version.startswith("2."):
        return read_aedat2(data, chip)
    if version == "3.1":
        return read_aedat3(data)
    if version.startswith("4."):
        return read_aedat4(data)
    if not data.startswith(b"#"):
        raise BadRecordingError("has no AEDAT header (lines that start with '#')")
    raise BadRecordingError(f"is AEDAT {version}; versions 2.0, 3.1 and 4.0 are supported")


READERS: dict[str, Callable[[bytes], Recording]] = {
    ".aedat4": read_aedat4,
    ".aedat": read_aedat,
    ".bin": read_bin,
    ".npz": read_npz,
    ".npy": read_npy,
    ".dat": read_dat,
    ".aedat2": read_aedat,
    ".aedat3": read_aedat,
}
"""Decoders by file extension."""

_UNMARKED = (".bin", ".dat")
"""Extensions that several programs use for different formats."""
_CONTENTS = (
    (re.compile(rb"PK\x03\x04"), "a zip or .npz file", (".npz",)),
    (re.compile(rb"\x1f\x8b\x08"), "a gzip file", ()),
    (re.compile(rb"\x93NUMPY"), "a .npy file", (".npy",)),
    (re.compile(rb"\x89HDF\r\n"), "an HDF5 file", ()),
    (re.compile(rb"MATLAB 5"), "a MATLAB file", ()),
    (re.compile(rb"version https://git-lfs"), "a Git LFS pointer, not the file itself,", ()),
    (re.compile(rb"\s*<(!DOCTYPE|html)", re.IGNORECASE), "a web page", ()),
    (re.compile(rb"% [\x20-\x7e]+\n"), "a Prophesee file", (".dat",)),
)
"""Starts of other formats, what they are, and the extensions that they belong to."""


def _check_content(ending: str, data: bytes) -> None:
    """Raise BadRecordingError if the content has another format.

    Any 40 bits decode as an event of a .bin file, and numpy takes all that it does not know for pickled objects.
    """
    for start, what, endings in _CONTENTS:
        if ending not in endings and start.match(data):
            raise BadRecordingError(f"is {what} with the extension {ending}")
