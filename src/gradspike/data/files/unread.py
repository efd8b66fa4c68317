"""Names the files of a data set that hold its samples but are not read: archives, tables and broken links."""

from __future__ import annotations

from gradspike.data.files.files import ARCHIVES, Files
from gradspike.shown import counted, listed

MOST = 3

_ARCHIVES = (*ARCHIVES, ".7z", ".rar", ".gz", ".bz2", ".xz", ".zst", ".lz4", ".z", ".lz", ".zip.001")
_TABLES = (".parquet", ".arrow", ".h5", ".hdf5", ".mat", ".tfrecord", ".tfrecords", ".mdb", ".rec", ".pkl")


def unread(files: Files) -> str:
    """Sentences for an error about missing samples, with a leading space; empty if there is nothing to say."""
    names = [entry.name for entry in files.entries()]
    text = ""
    if archives := [name for name in names if name.lower().endswith(_ARCHIVES)]:
        one = len(archives) == 1
        text += f" It contains {counted(len(archives), 'archive')} ({listed(archives, MOST)}): "
        text += f"unpack {'it' if one else 'them'}"
        text += f", or add dataset.source={files.shown(archives[0])}." if one and files.kind == "folder" else "."
    if tables := [name for name in names if name.lower().endswith(_TABLES)]:
        text += f" gradspike does not read {listed(tables, MOST)}; export the samples to class folders."
    if links := [entry.name for entry in files.entries() if files.kind == "folder" and not entry.size + entry.mark]:
        one = len(links) == 1
        text += f" {counted(len(links), 'link')} to {'a file that does' if one else 'files that do'} not exist: "
        text += f"{listed(links, MOST)}."
    return text
