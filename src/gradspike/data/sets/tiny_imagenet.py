"""Tiny-ImageNet-200 in its official layout, or as `split/class/name.ext`.

`val` is the test split, because `test` has no labels.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from typing_extensions import override

from gradspike.data.files.bad_file import BadFile
from gradspike.data.files.by_class import samples_root
from gradspike.data.files.companions import is_companion
from gradspike.data.files.containers import Entry
from gradspike.data.files.download import download
from gradspike.data.files.files import ARCHIVES, Files
from gradspike.data.files.text import read_text
from gradspike.data.options.base import DatasetConfig
from gradspike.data.options.pictures import TinyImageNetConfig
from gradspike.data.pictures.decode import EXTENSIONS
from gradspike.data.pictures.listing import PictureListing, assemble, list_class_folders
from gradspike.data.pictures.source import PictureSource
from gradspike.errors import UserError
from gradspike.shown import counted, listed

URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
MD5 = "90528d7ca1a48142e341f4ef8d21d0de"
ANNOTATIONS = "val/val_annotations.txt"


class TinyImageNet(PictureSource[TinyImageNetConfig]):
    """Images [3, 64, 64], labelled in the order of the sorted WordNet ids."""

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
        files = samples_root(files, EXTENSIONS)
        annotations = files.find(ANNOTATIONS)
        flat = [entry for entry in files.entries() if _unsorted(entry)]
        if flat and annotations is not None:
            return list_official(files, annotations)
        if flat:
            raise UserError(
                f"{files.shown()}: val/images has {counted(len(flat), 'image')} outside class folders, and "
                f"{ANNOTATIONS} is missing, so their labels are unknown."
            )
        found = list_class_folders(files, around_classes=("images",), test_may_lack_labels=True)
        return _with_words(files, found)


def _unsorted(entry: Entry) -> bool:
    """Whether a file is an image directly in val/images, as in the official layout."""
    folder, _, name = entry.name.rpartition("/")
    return folder == "val/images" and name.lower().endswith(EXTENSIONS)


def list_official(files: Files, annotations: Entry) -> PictureListing:
    """List the official layout: wnids.txt, train/<wnid>/images/*, val/images/* and val_annotations.txt.

    Each image in val/images needs one line in val_annotations.txt. Mismatches are bad files. If an image is also in
    its class folder (val/<wnid> or val/images/<wnid>), that one is used and the copy in val/images is left out.
    """
    bad = list(files.bad())
    entry = files.find("wnids.txt")
    if entry is None:
        raise UserError(f"{files.shown('wnids.txt')} is missing: it lists the classes of Tiny-ImageNet.")
    wnids = sorted(set(read_text(files, entry).split()))
    train: dict[str, list[Entry]] = {}
    pictures: dict[str, Entry] = {}
    by_folder: dict[str, list[Entry]] = {}
    strangers = set()
    for entry in files.entries():
        if is_companion(entry.name, EXTENSIONS):
            continue
        match entry.name.split("/"):
            case ["train", wnid, *_, name] if name.lower().endswith(EXTENSIONS):
                if wnid in wnids:
                    train.setdefault(wnid, []).append(entry)
                elif wnid not in strangers:
                    strangers.add(wnid)
                    bad.append(BadFile(files.shown(f"train/{wnid}"), "is not in wnids.txt"))
            case ["train", wnid, "images", _]:
                bad.append(BadFile(files.shown(entry.name), f"has none of the extensions {', '.join(EXTENSIONS)}"))
            case ["val", "images", name]:
                pictures[name] = entry
            case ["val", "images", wnid, name] | ["val", wnid, *_, name] if wnid in wnids:
                if name.lower().endswith(EXTENSIONS):
                    by_folder.setdefault(wnid, []).append(entry)
    missing = [wnid for wnid in wnids if wnid not in train]
    if missing:
        raise UserError(f"{files.shown('wnids.txt')} lists classes without training images: {listed(missing)}")
    test = _annotated(files, annotations, pictures, by_folder, wnids, bad)
    return _with_words(files, assemble(files, {"train": train, "test": test}, bad))


def _annotated(
    files: Files,
    annotations: Entry,
    pictures: dict[str, Entry],
    by_folder: dict[str, list[Entry]],
    wnids: list[str],
    bad: list[BadFile],
) -> dict[str, list[Entry]]:
    """The images of `val` by class, from their class folders or the annotations. Adds mismatches to `bad`."""
    found = {wnid: list(entries) for wnid, entries in by_folder.items()}
    folders = {entry.name.rpartition("/")[2]: wnid for wnid, entries in by_folder.items() for entry in entries}
    listed: set[str] = set()
    for number, line in enumerate(read_text(files, annotations).splitlines(), start=1):
        if not line.strip():
            continue
        name, wnid, *_ = [*(line.split("\t") if "\t" in line else line.split()), ""]
        wnid = wnid.strip()
        where = f"{files.shown(annotations.name)}, line {number}"
        if name in folders:
            if folders[name] != wnid:
                bad.append(BadFile(where, f"gives {name} the class '{wnid}', but it is in the folder {folders[name]}"))
        elif name not in pictures:
            bad.append(BadFile(where, f"lists {name}, which is not in val/images"))
        elif wnid not in wnids:
            bad.append(BadFile(where, f"gives {name} the class '{wnid}', which is not in wnids.txt"))
        elif name in listed:
            bad.append(BadFile(where, f"lists {name} twice"))
        else:
            found.setdefault(wnid, []).append(pictures[name])
        listed.add(name)
    for name in pictures.keys() - listed - folders.keys():
        bad.append(BadFile(files.shown(pictures[name].name), f"is not in {ANNOTATIONS}"))
    return {wnid: sorted(entries, key=lambda entry: entry.name) for wnid, entries in found.items()}


def _with_words(files: Files, listing: PictureListing) -> PictureListing:
    """Add the first English word of each class to its name, if words.txt exists."""
    words = _words(files)
    names = tuple(f"{wnid} {words[wnid]}" if wnid in words else wnid for wnid in listing.class_names)
    return replace(listing, class_names=names)


def _words(files: Files) -> dict[str, str]:
    """The first English word for each WordNet id; empty without words.txt."""
    entry = files.find("words.txt")
    lines = read_text(files, entry).splitlines() if entry is not None else []
    pairs = (line.partition("\t") for line in lines)
    return {wnid: text.partition(",")[0].strip() for wnid, _, text in pairs if text.strip()}
