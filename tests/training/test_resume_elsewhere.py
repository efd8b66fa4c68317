"""Resuming and evaluating with other devices or moved data. No error suggests something that is refused."""

from __future__ import annotations

import copy
import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import yaml

from gradspike.cli.evaluate import evaluate
from gradspike.collected import collect_losses
from gradspike.config.compose import load_config
from gradspike.config.schema import ExperimentConfig
from gradspike.data.datamodule import DataModule
from gradspike.data.loader import training_batches, training_order
from gradspike.errors import ConfigError, Interrupted, UserError
from gradspike.runs.folder import RunFolder
from gradspike.runs.resume import resumed_config
from gradspike.tools.landscape.command import landscape
from gradspike.training import trainer
from gradspike.training.build import build_data, build_model
from gradspike.training.checkpoint import load_checkpoint
from gradspike.training.device import check_device
from gradspike.training.losses import build_loss
from gradspike.training.module import SpikingClassifier
from gradspike.training.optim import parameter_groups
from gradspike.training.to_lower import to_lower
from helpers.command import TINY, here
from helpers.data_samples import encoded, pixels, write_class_folders
from helpers.forks import fork_server
from helpers.runs import assert_same_run, at_batch, epoch_records, train

Compose = Callable[..., ExperimentConfig]
STEPS = 1257 // 64  # of an epoch


def stopped(config: ExperimentConfig, monkeypatch: pytest.MonkeyPatch, batches: int) -> RunFolder:
    """A run stopped by a signal after this many parts of batches."""
    at_batch(monkeypatch, batches, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Interrupted):
        train(config)
    monkeypatch.undo()
    return RunFolder(next(Path(config.runs_dir).glob("2*")))


def reference(config: ExperimentConfig, parts_of: Callable[[int], int]) -> dict[str, torch.Tensor]:
    """Weights after plain training in float64, with the number of parts of each step."""
    L.seed_everything(config.seed, verbose=False)
    model = build_model(config).train().to(memory_format=torch.channels_last).double()
    criterion = build_loss(config.loss)
    optimizer = torch.optim.SGD(parameter_groups(model, config.optimizer), momentum=config.optimizer.momentum)
    data = build_data(config)
    data.setup()
    assert data._transform is not None
    samples, step = data.samples, 0
    for epoch in range(config.trainer.max_epochs):
        order = training_order(samples.indices("train"), config.seed, epoch)
        for batch in training_batches(order, config.dataset.batch_size):
            optimizer.zero_grad()
            parts = parts_of(step)
            for part in batch.reshape(parts, -1):
                inputs = data._transform(torch.from_numpy(samples.inputs[part]), torch.from_numpy(part), epoch)
                torch.set_default_dtype(torch.float64)
                try:
                    with collect_losses() as extra:
                        logits = model(inputs.double())
                    loss = criterion(logits, torch.from_numpy(samples.labels[part])) + extra.mean()
                    (loss / parts).backward()
                finally:
                    torch.set_default_dtype(torch.float32)
            optimizer.step()
            step += 1
    return copy.deepcopy(model.state_dict())


@pytest.mark.parametrize(("steps", "before", "after"), [(7, 1, 2), (STEPS + 5, 4, 2), (STEPS, 2, 1)])
def test_other_parts_of_a_batch_go_on_with_the_next_batch(
    tiny_config: Compose, monkeypatch: pytest.MonkeyPatch, steps: int, before: int, after: int
) -> None:
    """Within an epoch and at its end: the same batches, each once, as in plain training with these parts."""

    def in_double(self: DataModule, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        found = original(self, batch, dataloader_idx)
        return {**found, "input": found["input"].double()}

    def built_in_double(self: SpikingClassifier, config: ExperimentConfig, engine: str | None = None) -> None:
        built(self, config, engine)
        self.double()  # Lightning converts it only after it has loaded a checkpoint

    original, built = DataModule.on_after_batch_transfer, SpikingClassifier.__init__

    def patch() -> None:
        monkeypatch.setattr(SpikingClassifier, "__init__", built_in_double)
        monkeypatch.setitem(trainer.PRECISIONS, "fp32", "64-true")
        monkeypatch.setattr(DataModule, "on_after_batch_transfer", in_double)

    patch()
    words = ["scheduler=constant", "probe.enabled=false"]
    config = tiny_config(*words, f"trainer.accumulate={before}")
    run = stopped(config, monkeypatch, steps * before)
    assert load_checkpoint(run.last)["global_step"] == steps
    patch()
    train(tiny_config(*words, f"trainer.accumulate={after}"), run)
    trained = load_checkpoint(run.last)["state_dict"]
    for name, expected in reference(config, lambda step: before if step < steps else after).items():
        torch.testing.assert_close(trained[f"model.{name}"], expected, rtol=1e-9, atol=1e-11)
    assert run.summary()["steps"] == 2 * STEPS
    right = epoch_records(run)[-1]["train/accuracy"] * STEPS * 64
    assert right == pytest.approx(round(right), abs=1e-3), "each sample counts once"


def test_more_devices_take_over_within_an_epoch(
    tiny_config: Compose, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = stopped(tiny_config("trainer.accumulate=2", "trainer.max_epochs=1"), monkeypatch, 18)
    words = [f"resume={run.path}", "trainer.devices=2", "trainer.accumulate=1"]
    resumed = fork_server().start("train", *words, ranks=2)
    output = resumed.communicate()[0]
    assert resumed.returncode == 0, output
    assert run.summary()["steps"] == STEPS
    (record,) = epoch_records(run)
    right = record["train/accuracy"] * STEPS * 64
    assert right == pytest.approx(round(right), abs=1e-3)
    assert "changed: trainer.devices=2 instead of 1" in run.log.read_text()
    assert "Batch statistics are over 64 samples at a time; at the start of the run they were over 32" in (
        run.log.read_text()
    )
    session = json.loads((run.path / "environment.json").read_text())[-1]
    assert session["changed"] == {"trainer.accumulate": [2, 1], "trainer.devices": [1, 2]}


def test_one_device_takes_over_the_counts_of_several(tiny_config: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    unbroken = train(tiny_config("trainer.max_epochs=1"))
    config = tiny_config("trainer.max_epochs=1", f"runs_dir={unbroken.path.parent / 'stopped'}")
    run = stopped(config, monkeypatch, 9)
    content = load_checkpoint(run.last)
    nothing = {
        name: {key: torch.zeros_like(value) for key, value in counts.items()}
        for name, counts in content["ranks"][0]["train_meter"].items()
    }
    content["ranks"].append({**content["ranks"][0], "train_meter": nothing})
    torch.save(content, run.last)
    train(config, run)
    assert_same_run(unbroken, run)


@pytest.mark.parametrize("mixing", [[], ["loss.mixup=1", "dataset.batch_size=36"]])
def test_the_allowed_devices_are_accepted(
    tiny_config: Compose, capsys: pytest.CaptureFixture[str], mixing: list[str]
) -> None:
    product = 12 if mixing else 4
    run = RunFolder.create(tiny_config(f"trainer.accumulate={product}", *mixing))
    resuming = ["train", f"resume={run.path}", "--cfg", "job"]
    code, _, error = here([*resuming, "trainer.devices=2"], capsys)
    assert code == 2
    assert "dataset.batch_size" not in error, "which a resumed run keeps"
    ways = [line.split() for line in error.splitlines()[1:]]
    assert len(ways) == (1 if mixing else 3), error
    for way in ways:
        code, out, error = here([*resuming, *way], capsys)
        assert code == 0, error
        options = yaml.safe_load(out)["trainer"]
        assert options["devices"] * options["num_nodes"] * options["accumulate"] == product
    code, _, error = here([*resuming, "trainer.devices=two"], capsys)
    assert code == 2
    assert "trainer.devices=two: must be" in error
    if not mixing:
        nodes = ["trainer.devices=1", "trainer.num_nodes=2", "trainer.accumulate=2"]
        assert here([*resuming, *nodes], capsys)[0] == 0
        code, _, error = here([*resuming, "trainer=ddp4"], capsys)
        assert code == 2
        assert "trainer.max_epochs: the run has 2" in error or "keeps its configuration" in error


def test_what_touches_speed_alone_is_free_on_resume(tiny_config: Compose) -> None:
    run = RunFolder.create(tiny_config())
    words = ["engine=compiled", "trainer.compile=true", "trainer.channels_last=false", "trainer.deterministic=false"]
    words += ["dataset.eval_batch_size=32", "trainer.accelerator=auto"]
    config = resumed_config(run, tiny_config(*words), words)
    assert (config.engine, config.trainer.compile, config.trainer.channels_last) == ("compiled", True, False)
    assert (config.trainer.deterministic, config.dataset.eval_batch_size) == (False, 32)
    assert config.trainer.accelerator == "auto"
    with pytest.raises(ConfigError, match=r"trainer\.precision: the run has fp32"):
        resumed_config(run, tiny_config("trainer.precision=bf16"), ["trainer.precision=bf16"])


def test_advice_on_memory_is_accepted_on_resume(tiny_config: Compose) -> None:
    run = RunFolder.create(tiny_config("dataset.workers=2"))
    advice = re.findall(r"[a-z_.]+=\d+", to_lower(run.config(), resumed=True))
    assert advice == [f"dataset.eval_batch_size={run.config().dataset.eval_batch_size}", "dataset.workers=2"]
    lower = ["dataset.eval_batch_size=8", "dataset.workers=0"]
    assert resumed_config(run, tiny_config(*lower), lower).dataset.workers == 0


@pytest.mark.parametrize(("gpus", "ways"), [(0, 1), (1, 2), (3, 2)])
@pytest.mark.parametrize("accelerator", ["gpu", "auto"])
def test_advice_on_missing_devices_is_accepted(
    tiny_config: Compose, monkeypatch: pytest.MonkeyPatch, gpus: int, ways: int, accelerator: str
) -> None:
    words = ["trainer.devices=4", "trainer.accumulate=2", f"trainer.accelerator={accelerator}"]
    run = RunFolder.create(tiny_config(*words))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "get_arch_list", list)  # these devices have no compute capability
    if accelerator == "auto" and not gpus:
        check_device(run.config().trainer)  # trains on the CPU
        return
    with pytest.raises(UserError, match=f"this machine has {gpus} CUDA") as refusal:
        check_device(run.config().trainer)
    advice = str(refusal.value).partition("Use ")[2].rstrip(".").split(" or ")
    assert len(advice) == ways
    for way in advice:
        typed = way.split()
        check_device(resumed_config(run, tiny_config(*words, *typed), typed).trainer)
        check_device(tiny_config(*words, *typed).trainer)


@pytest.fixture(scope="module")
def trained(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = tmp_path_factory.mktemp("trained")
    return train(load_config([*TINY, "trainer.max_epochs=1", f"data_dir={data_dir}", f"runs_dir={folder}"]))


@pytest.mark.parametrize("name", ["evaluate", "landscape"])
def test_advice_of_commands_that_read_a_run_is_accepted(
    trained: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """Their keys have no `trainer.`; the run's engine may not work on this machine."""
    if torch.cuda.is_available():
        pytest.skip("needs a machine without a GPU")
    words = [name, f"run={trained.path}", *(["points=3", "samples=8"] if name == "landscape" else ["split=val"])]
    code, _, error = here([*words, "accelerator=gpu"], capsys)
    assert code == 1
    advice = re.search(r"Use (accelerator=cpu)\.", error)
    assert advice is not None, error
    file = trained.path / "config.yaml"
    before = file.read_text()
    file.write_text(yaml.safe_dump({**yaml.safe_load(before), "engine": "triton"}))
    try:
        code, _, error = here([*words, advice[1]], capsys)
        assert code == 0, error  # with an engine that works on this machine
        again = ["restart=true"] if name == "landscape" else []
        code, _, error = here([*words, advice[1], "engine=eager", *again], capsys)
        assert code == 0, error
        assert resumed_config(trained, trained.config().model_copy(update={"engine": "auto"}), ["engine=auto"])
    finally:
        file.write_text(before)


@pytest.fixture
def moved(tmp_path: Path) -> tuple[RunFolder, Path, Path]:
    """A run whose files have moved: their new location, and other files of the same kind."""
    counts = {"train": 8, "val": 3, "test": 3}
    write_class_folders(tmp_path / "pets", counts=counts)
    words = [
        *TINY,
        "dataset=image_folder",
        "model=spiking_cnn",
        "dataset.image_size=16",
        "dataset.classes=3",
        "dataset.batch_size=8",
    ]
    words += ["trainer.max_epochs=1", f"dataset.source={tmp_path / 'pets'}", f"data_dir={tmp_path / 'data'}"]
    run = train(load_config([*words, f"runs_dir={tmp_path / 'runs'}"]))
    (tmp_path / "pets").rename(tmp_path / "moved")
    write_class_folders(tmp_path / "others", counts=counts)
    (tmp_path / "others" / "val" / "ant" / "000.png").write_bytes(encoded(pixels(999)))
    for folder in (tmp_path / "data" / "prepared").iterdir():
        folder.rename(tmp_path / f"was {folder.name}")
    return run, tmp_path / "moved", tmp_path / "others"


def test_data_that_moved(
    moved: tuple[RunFolder, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, place, others = moved
    digest = load_checkpoint(run.last)["data"]
    before = run.summary()["test"]
    evaluating = ["evaluate", f"run={run.path}", "accelerator=cpu"]
    drawing = ["landscape", f"run={run.path}", "accelerator=cpu", "points=3", f"out={tmp_path / 'out'}"]
    resuming = ["train", f"resume={run.path}"]
    code, _, error = here(evaluating, capsys)
    assert code == 1
    assert "pets" in error
    run.set_status("interrupted")
    for words in (evaluating, drawing, resuming):
        code, _, error = here([*words, f"dataset.source={others}"], capsys)
        assert code == 1, error
        assert digest[:12] in error
        assert len(set(re.findall(r"\b[0-9a-f]{12}\b", error))) == 2, "both data sets are named"
        assert f"dataset.source={others}" in error
        assert words is not evaluating or not list(run.path.glob("evaluation_*"))
        code, _, error = here([*words, f"dataset.source={place}"], capsys)
        assert code == 0, error
    written = json.loads((run.path / "evaluation_test.json").read_text())
    assert written.pop("data") == {"dataset.source": str(place)}
    assert written == before
    labels = json.loads((tmp_path / "out" / "landscape.json").read_text())["labels"]
    assert labels["data"] == {"digest": digest, "dataset.source": str(place)}
    session = json.loads((run.path / "environment.json").read_text())[-1]
    assert session["changed"]["dataset.source"] == [str(tmp_path / "pets"), str(place)]


def test_a_data_set_without_files_has_no_source(trained: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("evaluate", "landscape"):
        code, _, error = here([name, f"run={trained.path}", "dataset.source=x"], capsys)
        assert code == 2
        assert "unknown key 'dataset.source'" in error
        code, _, error = here([name, f"run={trained.path}", "dataset.sorce=x"], capsys)
        assert code == 2
        assert "Did you mean 'dataset.source'?" in error


def test_other_data_in_data_dir_are_refused_by_evaluate(trained: RunFolder) -> None:
    content = load_checkpoint(trained.last)
    torch.save({**content, "data": "0123456789ab" + 52 * "0"}, trained.last)
    try:
        with pytest.raises(UserError, match=r"0123456789ab, but those of data_dir=.*Set data_dir to the run's data"):
            evaluate([f"run={trained.path}", "accelerator=cpu"])
    finally:
        torch.save(content, trained.last)


def test_landscape_takes_the_same_keys(trained: RunFolder, tmp_path: Path) -> None:
    words = [f"run={trained.path}", "points=3", "samples=8", "accelerator=cpu", "engine=eager", f"out={tmp_path}"]
    assert landscape(words) == 0
