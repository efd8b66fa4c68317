"""Choice of the decoder for a file of events.

A decoder turns the bytes of a file into a Recording in the file's order and raises BadRecordingError for what it cannot
decode. `Recording.check` validates the events afterwards, the same way for all formats.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable

from gradspike.data.events.aedat2 import read_aedat2, version_of
from gradspike.data.events.aedat3 import read_aedat3
from gradspike.data.events.aedat4 import read_aedat4
from gradspike.data.events.arrays import read_npy, read_npz
from gradspike.data.events.nmnist_bin import read_bin
from gradspike.data.events.prophesee_dat import read_dat
from gradspike.data.events.recording import BadRecordingError, Recording


def read_recording(name: str, data: bytes) -> Recording:
    """Read the file `name` with the content `data`; the extension names the format. Raises BadRecordingError."""
    ending = os.path.splitext(name)[1].lower()
    if ending not in READERS:
        raise BadRecordingError(f"is not one of {', '.join(READERS)}")
    if not data:
        raise BadRecordingError("is empty (0 bytes)")
    try:
        return READERS[ending](data)
    except BadRecordingError:
        raise
    except (ValueError, IndexError, KeyError, struct.error, OverflowError) as error:
        raise BadRecordingError(f"cannot be decoded as {ending}: {error}") from error


def read_aedat(data: bytes) -> Recording:
    """Read AEDAT 2.0, 3.1 or 4.0, depending on the first line."""
    version = version_of(data)
    if version.startswith("2."):
        return read_aedat2(data)
    if version == "3.1":
        return read_aedat3(data)
    if version.startswith("4."):
        return read_aedat4(data)
    if not data.startswith(b"#"):
        raise BadRecordingError("has no AEDAT header (lines that start with '#')")
    raise BadRecordingError(f"is AEDAT {version}; versions 2.0, 3.1 and 4.0 can be read")


READERS: dict[str, Callable[[bytes], Recording]] = {
    ".aedat4": read_aedat4,
    ".aedat": read_aedat,
    ".bin": read_bin,
    ".npz": read_npz,
    ".npy": read_npy,
    ".dat": read_dat,
}
"""Decoders by file extension."""
