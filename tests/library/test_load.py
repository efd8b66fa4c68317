"""A trained network predicts what the run's own evaluation says, from arrays, files, pictures and events."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import gradspike
from gradspike.config.schema import ExperimentConfig
from gradspike.data.events.frames import to_frames
from gradspike.data.registry import DATASETS
from gradspike.data.sets.digits_events import SIZE
from gradspike.data.source import Source
from gradspike.engine.registry import choose_engine, load_engine
from gradspike.errors import ConfigError, UserError
from gradspike.library.predict import stored_samples
from gradspike.runs.folder import RunFolder
from gradspike.spiking_norm import SpikingNorm
from gradspike.training.checkpoint import AtomicFiles, load_checkpoint
from helpers.command import TINY
from helpers.data_samples import write_class_folders
from helpers.event_samples import recording, structured
from helpers.runs import train

Compose = Callable[..., ExperimentConfig]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> RunFolder:
    places = [f"data_dir={data_dir}", f"runs_dir={tmp_path_factory.mktemp('runs')}"]
    return train(gradspike.load_config([*TINY, *places, "trainer.max_epochs=1"]))


def changed(run: RunFolder, name: str, **values: Any) -> Path:
    """A checkpoint of the run with other values; None leaves a key out."""
    content = load_checkpoint(run.last) | values
    AtomicFiles().save_checkpoint({key: value for key, value in content.items() if value is not None}, run.path / name)
    return run.path / name


def test_on_a_cpu_a_prediction_compiles_nothing_unless_asked_to(run: RunFolder) -> None:
    plain = load_checkpoint(run.last)["config"]
    given = changed(run, "auto.ckpt", config={**plain, "engine": "auto"})
    for engine, expected in ((None, "eager"), ("auto", choose_engine("auto", "cpu"))):
        net = gradspike.load(given, device="cpu", engine=engine)
        (used,) = {layer._run for layer in net.modules() if isinstance(layer, SpikingNorm)}
        assert used is load_engine(expected)


def test_it_predicts_what_the_evaluation_counts(run: RunFolder, tiny_config: Compose) -> None:
    data = gradspike.build_data(tiny_config())
    data.setup()
    samples, test = data.samples, data.samples.indices("test")
    net = gradspike.load(run.path, checkpoint="last", device="cpu")
    prediction = net.predict(samples.inputs[test])
    right = prediction.labels.numpy() == samples.labels[test]
    assert right.mean() == pytest.approx(run.summary()["test"]["last"]["accuracy"])
    assert prediction.names == tuple(map(str, prediction.labels.tolist()))
    assert prediction.logits.shape == (4, len(test), 10)
    torch.testing.assert_close(prediction.probabilities.sum(1), torch.ones(len(test)))
    assert not net.training
    assert not any(parameter.requires_grad for parameter in net.parameters())
    # The transform normalises by the statistics of the data, which the checkpoint carries.
    inputs = net.transform(torch.from_numpy(samples.inputs[test]))
    torch.testing.assert_close(
        inputs, (torch.from_numpy(samples.inputs[test]) / 255 - samples.mean[0]) / samples.std[0]
    )


def test_an_image_and_an_array_are_the_same_sample(run: RunFolder, tmp_path: Path) -> None:
    net = gradspike.load(run.last, device="cpu")
    levels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    Image.fromarray(levels).save(tmp_path / "own.png")
    Image.fromarray(np.kron(levels, np.ones((3, 3), np.uint8))).save(tmp_path / "large.png")
    expected = net.predict(levels[None])
    for given in (Image.fromarray(levels), tmp_path / "own.png", str(tmp_path / "own.png"), [levels[None, None]]):
        assert torch.equal(net.predict(given).logits, expected.logits)
    both = net.predict([tmp_path / "large.png", levels[None]])
    assert torch.allclose(both.logits[:, 1:], expected.logits, atol=1e-6)
    assert both.labels.shape == (2,)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (np.zeros((1, 8, 8)), "has the type float64; expected uint8"),
        (np.zeros((1, 9, 8), np.uint8), r"shape \[1, 9, 8\]; expected \[C, H, W\] = \[1, 8, 8\].*scaled"),
        ("nowhere.png", "unknown file 'nowhere.png'"),
        (__file__, "test_load.py: is not a PNG, JPEG or WebP image"),
        (7, "int: is neither a path, an array nor an image"),
        ([], "no samples"),
        ("", "'' is a folder, not a file"),
        (Path(__file__).parent, "library' is a folder, not a file"),
        (structured(recording(0)), "takes images, not events"),
        (Image.fromarray(np.ones((8, 8), np.float32)), "has float levels, whose range is not known"),
    ],
)
def test_what_does_not_fit_is_refused(given: Any, said: str, tmp_path: Path, tiny_config: Compose) -> None:
    config = tiny_config()
    source = DATASETS.build(Source, config.dataset, config.time_steps, tmp_path)  # type: ignore[type-abstract]
    with pytest.raises(UserError, match=said):
        stored_samples(given, source)


def test_times_are_not_used_for_images(tmp_path: Path, tiny_config: Compose) -> None:
    config = tiny_config()
    source = DATASETS.build(Source, config.dataset, config.time_steps, tmp_path)  # type: ignore[type-abstract]
    with pytest.raises(UserError, match="span_us: is for events"):
        stored_samples("picture.png", source, (0, 10))


def events_with(field: str, kind: str, value: float) -> np.ndarray:
    """Events in which the first value of a field is `value`, of another type."""
    events = structured(recording(0, size=SIZE))
    changed = np.empty(len(events), [(name, kind if name == field else events.dtype[name]) for name in "txyp"])
    for name in "txyp":
        changed[name] = events[name]
    changed[field][0] = value
    return changed


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (events_with("p", "i1", 2), "column p contains values other than 0 and 1"),
        (events_with("t", "f8", 0.5), "fractional numbers; times are whole microseconds"),
        (events_with("x", "i8", 2**16 + 1), "column x contains 65537"),
        (events_with("x", "i2", 500), "outside the sensor of 24x24 pixels"),
        (structured(recording(0, size=SIZE))[["t", "x", "y"]], "has no column p"),
        (np.full((6, 2, SIZE, SIZE), -1, np.int16), "negative values; frames are counts"),
        (Image.new("L", (8, 8)), "takes events or their frames, not images"),
    ],
)
def test_events_that_do_not_fit_are_refused(given: Any, said: str, tmp_path: Path, tiny_config: Compose) -> None:
    config = tiny_config("dataset=digits_events")
    source = DATASETS.build(Source, config.dataset, config.time_steps, tmp_path)  # type: ignore[type-abstract]
    with pytest.raises(UserError, match=said):
        stored_samples(given, source)


def test_polarity_may_be_minus_one(tmp_path: Path, tiny_config: Compose) -> None:
    config = tiny_config("dataset=digits_events")
    source = DATASETS.build(Source, config.dataset, config.time_steps, tmp_path)  # type: ignore[type-abstract]
    events = structured(recording(0, size=SIZE))
    signed = events_with("p", "i1", 1 if events["p"][0] else -1)
    signed["p"] = np.where(events["p"], 1, -1)
    assert torch.equal(stored_samples(signed, source), stored_samples(events, source))


def test_an_older_checkpoint_reads_the_data(run: RunFolder, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    new = gradspike.load(run.last, device="cpu")
    with caplog.at_level(logging.WARNING, "gradspike"):
        old = gradspike.load(changed(run, "old.ckpt", input=None), device="cpu")
    said = "old.ckpt has neither statistics nor class names of its data. Reading them from dataset=digits"
    assert said in caplog.text
    image = np.full((1, 8, 8), 99, np.uint8)
    assert torch.equal(old.predict(image).logits, new.predict(image).logits)
    with pytest.raises(UserError, match="the run was trained on samples with the digest"):
        gradspike.load(changed(run, "other.ckpt", input=None, data="0" * 64), data_dir=str(tmp_path), device="cpu")


def test_what_cannot_be_loaded_is_refused(run: RunFolder) -> None:
    with pytest.raises(ConfigError, match="is not a run folder"):
        gradspike.load(run.path.parent)
    with pytest.raises(UserError, match="checkpoint=bset: must be best or last"):
        gradspike.load(run.path, checkpoint="bset")
    with pytest.raises(UserError, match="device=cuda: must be auto, cpu or gpu"):
        gradspike.load(run.path, device="cuda")
    config = run.config().plain()
    config["model"]["width"] = 8
    with pytest.raises(UserError, match=r"wide.ckpt: does not fit the network"):
        gradspike.load(changed(run, "wide.ckpt", config=config), device="cpu")


def test_code_outside_gradspike_needs_trust(run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "method_of_a_stranger.py").write_text(
        "from gradspike.methods.mpd_agl import MpdAgl\n\n\nclass Strange(MpdAgl):\n    pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    config = run.config().plain()
    config["method"]["name"] = "method_of_a_stranger:Strange"
    file = changed(run, "strange.ckpt", config=config)
    with pytest.raises(ConfigError, match=r"method.name=method_of_a_stranger:Strange\nIf you trust .*trust=True"):
        gradspike.load(file, device="cpu")
    net = gradspike.load(file, device="cpu", trust=True)
    assert type(net.model.neurons[0].method).__name__ == "Strange"


def test_class_names_come_from_the_data(tmp_path: Path, tiny_config: Compose) -> None:
    write_class_folders(tmp_path / "pictures")
    words = ["dataset=image_folder", f"dataset.source={tmp_path / 'pictures'}", "dataset.image_size=8"]
    words += [
        "model=spiking_cnn",
        "dataset.classes=3",
        "trainer.max_epochs=1",
        "dataset.val_fraction=0",
        f"data_dir={tmp_path}",
    ]
    run = train(tiny_config(*words, f"data_dir={tmp_path}"))
    net = gradspike.load(run.path, device="cpu")
    named = sorted(folder.name for folder in (tmp_path / "pictures" / "train").iterdir())
    assert net.class_names == tuple(named)
    picture = next((tmp_path / "pictures" / "test").rglob("*.png"))
    assert net.predict(picture).names[0] in named


def test_events_become_the_frames_of_the_data_set(tmp_path: Path) -> None:
    """Those of files: binned and scaled as in preparation; those of digits_events: over its 300 ms."""
    events = recording(3, size=24)
    config = gradspike.load_config(["dataset=nmnist", "time_steps=3"])
    source = DATASETS.build(Source, config.dataset, 3, tmp_path)  # type: ignore[type-abstract]
    expected = to_frames(events, (34, 34), 3)
    for given in (events, structured(events)):
        assert np.array_equal(stored_samples(given, source)[0], expected)
    later = to_frames(events, (34, 34), 3, span_us=(0, 5000))
    assert np.array_equal(stored_samples(events, source, (0, 5000))[0], later)
    with pytest.raises(UserError, match=r"the sample: .* outside the sensor of 34x34"):
        stored_samples(recording(3, size=99), source)
    with pytest.raises(UserError, match="time goes backwards"):
        stored_samples(structured(events)[::-1], source)
    with pytest.raises(UserError, match="has no column p"):
        stored_samples(structured(events)[["t", "x", "y"]], source)
    digits = gradspike.load_config(["dataset=digits_events", "time_steps=3"])
    source = DATASETS.build(Source, digits.dataset, 3, tmp_path)  # type: ignore[type-abstract]
    spread = to_frames(events, (SIZE, SIZE), 3, span_us=(0, 300_000))
    assert np.array_equal(stored_samples([events, events], source)[1], spread)
