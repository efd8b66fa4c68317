"""CIFAR's files: the written pixels from any pickle, and bad batches by their names."""

from __future__ import annotations

import io
import pickle
import shutil
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gradspike.data.files.safe_pickle import load_pickle
from gradspike.data.options.pictures import Cifar10Config, Cifar100Config
from gradspike.data.pictures.decode import fit
from gradspike.data.sets.cifar import Cifar
from gradspike.errors import UserError
from helpers.data_samples import pack, write_cifar_pickles
from helpers.pictures import by_name, load_alone, load_cifar, same_pictures


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
@pytest.mark.parametrize("packed", [False, True])
def test_cifars_pickles_give_the_written_pixels(tmp_path: Path, name: str, packed: bool) -> None:
    """Found in data_dir under their official names."""
    official = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}[name]
    written = write_cifar_pickles(tmp_path / official, name)
    if packed:
        archive = official.replace("-batches-py", "-python") + ".tar.gz"
        pack(tmp_path / official, tmp_path / archive, f"{official}/")
        shutil.rmtree(tmp_path / official)
    schema = {"cifar10": Cifar10Config, "cifar100": Cifar100Config}[name]
    samples = load_alone(Cifar(schema(classes=3), 4, tmp_path))
    assert same_pictures(samples, {key: row.reshape(3, 32, 32).transpose(1, 2, 0) for key, row in written.items()})
    assert samples.class_names == ("class0", "class1", "class2")
    assert {name.split("_")[0] for name in np.array(samples.names)[samples.indices("test")]} == {"test"}
    assert (samples.labels == np.tile([0, 1, 2, 0], len(written) // 4)).all()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifars_pickles_that_another_program_wrote_again(tmp_path: Path, name: str, protocol: int) -> None:
    """Read with `encoding="bytes"` and saved: bytes as keys and names, scalars of numpy as labels."""
    folder = tmp_path / {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}[name]
    written = write_cifar_pickles(folder, name)
    for file in folder.iterdir():
        content = load_pickle(file.read_bytes())
        again = {
            key.encode(): [one.encode() if isinstance(one, str) else np.int64(one) for one in value]
            if isinstance(value, list)
            else value
            for key, value in content.items()
        }
        file.write_bytes(pickle.dumps(OrderedDict(again) if "test" in file.name else again, protocol))
    schema = {"cifar10": Cifar10Config, "cifar100": Cifar100Config}[name]
    samples = load_alone(Cifar(schema(classes=3), 4, tmp_path))
    assert same_pictures(samples, {key: row.reshape(3, 32, 32).transpose(1, 2, 0) for key, row in written.items()})
    assert samples.class_names == ("class0", "class1", "class2")


def test_class_names_of_cifar_are_text_and_differ(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    write_cifar_pickles(folder)
    names = {b"label_names": ["é".encode(), b"caf\xe9", b"c"]}
    (folder / "batches.meta").write_bytes(pickle.dumps(names))
    assert load_cifar(tmp_path, None).class_names == ("é", "café", "c")
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": ["a", "b", "a"]}))
    with pytest.raises(UserError, match=r"batches\.meta names a class twice: a\."):
        load_cifar(tmp_path, None)


def test_cifars_pickles_can_be_enlarged(tmp_path: Path) -> None:
    written = write_cifar_pickles(tmp_path / "cifar-10-batches-py")
    samples = load_cifar(tmp_path, None, image_size=40)
    name, row = next(iter(written.items()))
    expected = fit(Image.fromarray(row.reshape(3, 32, 32).transpose(1, 2, 0)), 40)
    assert (by_name(samples)[name] == np.asarray(expected)).all()


def test_a_pickle_that_names_code_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "run",))

    with pytest.raises(ValueError, match="not allowed in a data file"):
        load_pickle(pickle.dumps({"data": Evil()}))
    assert not (tmp_path / "run").exists()
    array = np.arange(6, dtype=np.uint8).reshape(2, 3)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert (load_pickle(pickle.dumps({"data": array}, protocol))["data"] == array).all()


def batch(folder: Path, **changes: Any) -> None:
    """Change the contents of the second training batch of the pickles."""
    content = load_pickle((folder / "data_batch_2").read_bytes())
    (folder / "data_batch_2").write_bytes(pickle.dumps(content | changes))


BAD_BATCHES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda folder: (folder / "data_batch_2").unlink(), "is missing"),
    "cut off": (
        lambda folder: (folder / "data_batch_2").write_bytes((folder / "data_batch_2").read_bytes()[:5000]),
        "cannot be unpickled",
    ),
    "empty": (lambda folder: (folder / "data_batch_2").write_bytes(b""), "cannot be unpickled"),
    "too few labels": (lambda folder: batch(folder, labels=[0]), "4 images, 1 label and 4 names"),
    "too few names": (lambda folder: batch(folder, filenames=["a"]), "4 images, 4 labels and 1 name"),
    "unknown label": (lambda folder: batch(folder, labels=[0, 1, 2, 3]), "labels outside 0 to 2"),
    "other size": (
        lambda folder: batch(folder, data=np.zeros((4, 27), np.uint8)),
        r"uint8 \(4, 27\) instead of uint8 \[images, 3072\]",
    ),
    "no array": (lambda folder: batch(folder, data=[1, 2]), "'data' is list"),
}


@pytest.mark.parametrize("kind", BAD_BATCHES)
def test_a_bad_pickle_is_refused_or_skipped_by_its_name(tmp_path: Path, kind: str) -> None:
    spoil, reason = BAD_BATCHES[kind]
    folder = tmp_path / "cifar-10-batches-py"
    write_cifar_pickles(folder)
    spoil(folder)
    with pytest.raises(UserError, match=reason) as error:
        load_cifar(tmp_path, None)
    assert str(folder / "data_batch_2") in str(error.value)
    samples = load_cifar(tmp_path, None, on_bad_file="skip")
    assert len(samples.labels) == 20


def test_real_cifar_decodes_as_an_independent_reading(shared_data: Path, tmp_path: Path) -> None:
    """60 images of the archive, read by hand; labels by the official list."""
    official = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    archive = shared_data / "cifar10.zip"
    if not archive.is_file():
        pytest.skip(f"{archive} is not there")
    with zipfile.ZipFile(archive) as file:
        names = sorted(file.namelist())
        chosen = [name for name in names if "_s_00004" in name][:60]
        with zipfile.ZipFile(tmp_path / "some.zip", "w") as some:
            for name in chosen:
                some.writestr(name, file.read(name))
            for label in official:
                for split in ("train", "test"):
                    name = next(name for name in names if name.startswith(f"{split}/{label}/"))
                    if name not in chosen:
                        chosen.append(name)
                        some.writestr(name, file.read(name))
        samples = load_cifar(tmp_path, tmp_path / "some.zip", classes=10)
        assert list(samples.class_names) == official
        found = by_name(samples)
        assert found.keys() == set(chosen)
        for name, label in zip(samples.names, samples.labels, strict=True):
            with Image.open(io.BytesIO(file.read(name))) as picture:
                assert (found[name] == np.asarray(picture.convert("RGB"))).all()
            assert official[label] == name.split("/")[1]
