"""A new run that starts from given weights: those that fit are used, and what is left out is named."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch

from gradspike.cli.train import train as train_command
from gradspike.config.schema import ExperimentConfig
from gradspike.errors import ConfigError
from gradspike.runs.folder import RunFolder
from gradspike.training.checkpoint import load_checkpoint
from gradspike.training.evaluate import as_evaluated
from gradspike.training.module import SpikingClassifier
from gradspike.training.start import started
from helpers.command import TINY
from helpers.data_samples import write_class_folders
from helpers.runs import train, weights

Compose = Callable[..., ExperimentConfig]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> RunFolder:
    from gradspike import load_config

    places = [f"data_dir={data_dir}", f"runs_dir={tmp_path_factory.mktemp('runs')}"]
    return train(load_config([*TINY, *places, "trainer.max_epochs=1", "probe.enabled=false"]))


def model_of(run: RunFolder, name: str = "best") -> dict[str, torch.Tensor]:
    return {key.removeprefix("model."): value for key, value in weights(run, name).items() if key.startswith("model.")}


def test_all_weights_of_a_run_a_checkpoint_or_a_file(run: RunFolder, tiny_config: Compose, tmp_path: Path) -> None:
    config = tiny_config()
    safetensors.torch.save_file({k: v.contiguous() for k, v in model_of(run).items()}, tmp_path / "w.safetensors")
    torch.save(model_of(run), tmp_path / "w.pt")
    for file in (run.best, tmp_path / "w.safetensors", tmp_path / "w.pt"):
        start = started(config, file)
        state = start.module.model.state_dict()
        assert all(torch.equal(state[name], value) for name, value in model_of(run).items())
        assert len(start.lines) == 1
        assert str(file.name) in start.lines[0]


def test_a_run_starts_where_another_ended(
    run: RunFolder, tiny_config: Compose, caplog: pytest.LogCaptureFixture
) -> None:
    """With a learning rate of almost zero the weights are still those of the other run; a resumed one keeps its own."""
    config = tiny_config(f"init_from={run.path}", "trainer.max_epochs=1", "optimizer.lr=1e-12", "seed=7")
    with caplog.at_level(logging.INFO, "gradspike"):
        second = train(config)
    assert "start: weights of" in caplog.text
    assert "best.ckpt, epoch 1, sha256" in caplog.text
    for name, value in model_of(run).items():
        if "running" not in name and "num_batches" not in name:
            torch.testing.assert_close(model_of(second, "last")[name], value)
    assert second.config().init_from == str(run.path)
    caplog.clear()
    with caplog.at_level(logging.INFO, "gradspike"):
        train(second.config(), second)
    assert "start: weights of" not in caplog.text


def test_fine_tuning_on_another_data_set(
    run: RunFolder, tiny_config: Compose, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A head of another size is left out, and so said; everything else is the run's."""
    config = tiny_config()
    other = config.model_copy(update={"dataset": config.dataset.model_copy(update={"classes": 3})})
    start = started(other, run.best)
    (_, line) = start.lines
    assert line.startswith(
        "start: another shape, stays as it starts: 2 values, head.weight [10, 32] instead of [3, 32]"
    )
    state = start.module.model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in model_of(run).items() if "head" not in name)
    assert state["head.weight"].shape == (3, 32)
    # From the command line, on a data set of three channels, which the first convolution does not have.
    write_class_folders(tmp_path / "pictures")
    words = ["dataset=image_folder", f"dataset.source={tmp_path / 'pictures'}", "dataset.image_size=8"]
    words += ["dataset.classes=3", "model=spiking_cnn", f"init_from={run.path}", f"data_dir={tmp_path}"]
    with pytest.raises(
        ConfigError, match=r"with another shape: convs.0.weight \[4, 1, 3, 3\] instead of \[4, 3, 3, 3\]"
    ):
        train(tiny_config(*words))
    assert not list((tmp_path / "runs").glob("*"))


def test_values_of_methods_and_norms_may_be_missing(run: RunFolder, tiny_config: Compose) -> None:
    """Weights are used with another method, neuron and norm, whose own values start as usual."""
    start = started(tiny_config("method=psg", "neuron=lif", "norm=tebn"), run.best)
    text = "\n".join(start.lines)
    assert "not in the file, stays as it starts: 4 values, neurons.0.norm.time_scale" in text
    assert "neurons.0.method." in text
    assert "only in the file, left out: 2 values, neurons.0.neuron.decay_logit" in text
    state = start.module.model.state_dict()
    assert torch.equal(state["convs.1.weight"], model_of(run)["convs.1.weight"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["model.width=8"], "with another shape: convs.0.weight"),
        (["model.depth=3"], "missing: convs.2.weight"),
        (["model.depth=1"], "not in the network: convs.1.weight"),
    ],
)
def test_another_backbone_is_refused(run: RunFolder, tiny_config: Compose, words: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=rf"init_from=.*best.ckpt: does not fit the network, a SpikingCnn.*{said}"):
        started(tiny_config(*words), run.best)


def test_weights_of_a_hub_in_timms_names(tiny_config: Compose, tmp_path: Path) -> None:
    import timm

    source = timm.create_model("test_resnet", num_classes=7, in_chans=3)
    safetensors.torch.save_file(source.state_dict(), tmp_path / "model.safetensors")
    words = ["model=timm", "model.name=test_resnet", "dataset=cifar10", "recipe=none", "engine=eager", "time_steps=1"]
    from gradspike import load_config

    config = load_config(words)
    module = started(config, tmp_path / "model.safetensors").module
    loaded = module.model.state_dict()
    assert torch.equal(loaded["network.conv1.0.weight"], source.state_dict()["conv1.0.weight"])
    assert module.config == config  # what the checkpoint records names no file, which may be gone later
    notes = "\n".join(module.model.report.lines())
    assert "fc.weight: [7" in notes


@pytest.mark.parametrize("key", ["model.pretrained", "init_from"])
def test_a_saved_timm_run_keeps_its_network_without_the_file_of_its_first_weights(key: str, tmp_path: Path) -> None:
    """Trained weights leave residual blocks as in timm. The same state dict fits networks with another form."""
    import timm

    from gradspike import load_config

    file = tmp_path / "w.safetensors"
    safetensors.torch.save_file(timm.create_model("test_resnet", num_classes=10, in_chans=3).state_dict(), file)
    words = ["model=timm", "model.name=test_resnet", "dataset=cifar10", "recipe=none", "engine=eager", "time_steps=1"]
    config = load_config([*words, f"{key}={file}"])
    first = started(config, file if key == "init_from" else None).module
    file.unlink()
    resumed = started(config, None, saved=True).module
    evaluated = SpikingClassifier(as_evaluated(config, None, "cpu"), "eager")
    assert resumed.config == config
    for one in (first, resumed, evaluated):
        assert "residual blocks: as_is" in "\n".join(one.model.report.lines())  # type: ignore[operator, union-attr]
    named = f"weights of {file}" if key == "model.pretrained" else "random weights"
    assert named in resumed.model.report.lines()[0]  # type: ignore[operator, union-attr]


def test_a_deleted_run_with_a_dot_in_its_name_was_no_file_of_weights(tmp_path: Path) -> None:
    from gradspike import load_config

    words = ["model=timm", "model.name=test_resnet", "dataset=cifar10", "recipe=none"]
    config = load_config([*words, f"init_from={tmp_path / 'fixed_sg_width0.5_s0'}"])
    assert as_evaluated(config, None, "cpu").model == config.model
    assert config.model.residual == "auto"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("path", "said"),
    [("nowhere", "init_from: unknown run, checkpoint or file of weights '.*nowhere'"), (".", "is not a run folder")],
)
def test_what_is_not_there_is_refused_before_torch(tiny_config: Compose, tmp_path: Path, path: str, said: str) -> None:
    config = tiny_config(f"init_from={tmp_path / path}")
    with pytest.raises(ConfigError, match=said):
        train_command(config, [])


def test_a_run_records_the_whole_path_of_its_start_and_needs_it_no_more_once_it_has_saved(
    run: RunFolder, tiny_config: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    start = Path(shutil.copy(run.best, tmp_path / "start.ckpt"))
    monkeypatch.chdir(tmp_path)
    second = train(tiny_config("init_from=start.ckpt", "trainer.max_epochs=1"))
    assert load_checkpoint(second.last)["config"]["init_from"] == second.config().init_from == str(start)
    start.rename(tmp_path / "renamed.ckpt")
    monkeypatch.chdir("elsewhere")
    second.set_status("interrupted")
    resumed = second.config().model_copy(update={"resume": str(second.path)})
    assert train_command(resumed, []) == 0
    assert second.state() == "finished"
