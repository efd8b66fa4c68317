"""Tiny-ImageNet-200 in its official layout, or as `split/class/name.ext`.

`val` is the test split, because `test` has no labels.
"""

from __future__ import annotations

from typing import ClassVar

from typing_extensions import override

from gradspike.data.files.bad_file import BadFile
from gradspike.data.files.containers import Entry
from gradspike.data.files.download import download
from gradspike.data.files.files import ARCHIVES, Files
from gradspike.data.options.base import DatasetConfig
from gradspike.data.options.pictures import TinyImageNetConfig
from gradspike.data.pictures.decode import EXTENSIONS
from gradspike.data.pictures.listing import PictureListing, assemble, list_class_folders
from gradspike.data.pictures.source import PictureSource
from gradspike.errors import UserError

URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
MD5 = "90528d7ca1a48142e341f4ef8d21d0de"
ANNOTATIONS = "val/val_annotations.txt"


class TinyImageNet(PictureSource[TinyImageNetConfig]):
    """Pictures [3, 64, 64]. Labels follow the sorted WordNet ids."""

    Config: ClassVar[type[DatasetConfig]] = TinyImageNetConfig
    what = "Tiny-ImageNet"
    usual_names = (
        "tiny-imagenet-200",
        "tiny-imagenet-200.zip",
        "tiny_imagenet",
        *(f"tiny_imagenet{ending}" for ending in ARCHIVES),
    )
    put = (
        f"the official download {URL}, packed or unpacked; or train/<class>/*.png and test/<class>/*.png as "
        "tiny_imagenet.zip, .tar or folder; or add dataset.download=true on a machine with network access"
    )
    stored_size = 64

    @override
    def download(self) -> None:
        download(URL, MD5, self.data_dir, "tiny-imagenet-200.zip")

    @override
    def listing(self, files: Files) -> PictureListing:
        files = files.within_single_folder("train", "val", "test")
        annotations = files.find(ANNOTATIONS)
        return list_class_folders(files) if annotations is None else list_official(files, annotations)


def list_official(files: Files, annotations: Entry) -> PictureListing:
    """The official layout: wnids.txt, train/<wnid>/images/*, val/images/* with one line each in val_annotations.txt.

    The lists and the files must agree; what does not is among the bad files.
    """
    bad = list(files.bad())
    words = _words(files)
    entry = files.find("wnids.txt")
    if entry is None:
        raise UserError(f"{files.shown('wnids.txt')} is missing: it lists the classes of Tiny-ImageNet.")
    wnids = sorted(set(_text(files, entry).split()))
    train: dict[str, list[Entry]] = {}
    pictures: dict[str, Entry] = {}
    strangers = set()
    for entry in files.entries():
        match entry.name.split("/"):
            case ["train", wnid, *_, name] if name.lower().endswith(EXTENSIONS):
                if wnid in wnids:
                    train.setdefault(wnid, []).append(entry)
                elif wnid not in strangers:
                    strangers.add(wnid)
                    bad.append(BadFile(files.shown(f"train/{wnid}"), "is not in wnids.txt"))
            case ["train", wnid, "images", _]:
                bad.append(BadFile(files.shown(entry.name), f"is not one of {', '.join(EXTENSIONS)}"))
            case ["val", "images", name]:
                pictures[name] = entry
    missing = [wnid for wnid in wnids if wnid not in train]
    if missing:
        raise UserError(
            f"{files.shown('wnids.txt')} lists classes without training pictures: {', '.join(missing[:10])}"
        )
    test = _annotated(files, annotations, pictures, wnids, bad)
    listing = assemble(files, {"train": train, "test": test}, bad)
    names = tuple(f"{wnid} {words[wnid]}" if wnid in words else wnid for wnid in listing.class_names)
    return PictureListing(files, listing.items, names, listing.bad)


def _annotated(
    files: Files, annotations: Entry, pictures: dict[str, Entry], wnids: list[str], bad: list[BadFile]
) -> dict[str, list[Entry]]:
    """The pictures of `val` by class, as the annotations say; adds disagreements to `bad`."""
    found: dict[str, list[Entry]] = {}
    listed: set[str] = set()
    for number, line in enumerate(_text(files, annotations).splitlines(), start=1):
        if not line.strip():
            continue
        name, wnid, *_ = [*line.split("\t"), ""]
        where = f"{files.shown(annotations.name)}, line {number}"
        if name not in pictures:
            bad.append(BadFile(where, f"names {name}, which is not in val/images"))
        elif wnid not in wnids:
            bad.append(BadFile(where, f"gives {name} the class '{wnid}', which is not in wnids.txt"))
        elif name in listed:
            bad.append(BadFile(where, f"names {name} once more"))
        else:
            found.setdefault(wnid, []).append(pictures[name])
        listed.add(name)
    for name in pictures.keys() - listed:
        bad.append(BadFile(files.shown(pictures[name].name), f"is not in {ANNOTATIONS}"))
    return {wnid: sorted(entries, key=lambda entry: entry.name) for wnid, entries in found.items()}


def _words(files: Files) -> dict[str, str]:
    """The first English word of each WordNet id, where the list is there."""
    entry = files.find("words.txt")
    lines = _text(files, entry).splitlines() if entry is not None else []
    pairs = (line.partition("\t") for line in lines)
    return {wnid: text.partition(",")[0].strip() for wnid, _, text in pairs if text.strip()}


def _text(files: Files, entry: Entry) -> str:
    try:
        return files.read(entry).decode("utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"{files.shown(entry.name)}: cannot be read ({error}).") from error
