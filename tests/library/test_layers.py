"""Layers without Hydra are those of the command line; a Trainer of one's own trains as ours does."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import lightning
import pytest
import torch

import gradspike
from gradspike import SpikingLayers
from gradspike.config.schema import ExperimentConfig
from gradspike.errors import ConfigError
from gradspike.spiking_norm import LayerContext
from helpers.command import ROOT
from helpers.networks import changed
from helpers.runs import train, weights


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({}, []),
        (
            {"method": "ds_atgo_off", "neuron": {"name": "lif", "decay": 0.7}, "norm": "bn"},
            ["method=ds_atgo_off", "neuron=lif", "neuron.decay=0.7", "norm=bn"],
        ),
        ({"method": {"name": "psg", "v_threshold": 1.5}}, ["method=psg", "method.v_threshold=1.5"]),
    ],
)
def test_a_layer_is_that_of_the_command_line(parts: dict[str, object], words: list[str]) -> None:
    layers = SpikingLayers(**parts, time_steps=3)  # type: ignore[arg-type]
    config = gradspike.load_config([*words, "time_steps=3", "recipe=none"])
    assert layers.context == LayerContext(3, config.neuron, config.method, config.norm, "eager")
    layer = layers.layer(64, bias=0.5)
    y = torch.randn(6, 64, 2, 2)
    assert torch.equal(layer(y), config_layer(config)(y))
    assert layers.neuron_layer(3).norm is None
    assert layers.channel_norm(5, branches=2).weight.shape == (5,)


def config_layer(config: ExperimentConfig) -> torch.nn.Module:
    return LayerContext(3, config.neuron, config.method, config.norm).layer(64, bias=0.5)


def test_a_part_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "method_for_layers.py").write_text(
        "from gradspike.methods.lsg import Lsg\n\n\nclass Mine(Lsg):\n    pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    layer = SpikingLayers({"name": "method_for_layers:Mine", "v_threshold": 0.25}).layer(2)
    assert (type(layer.method).__name__, layer.v_threshold) == ("Mine", 0.25)


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"method": "mpd_agll"}, "unknown method 'mpd_agll'. Did you mean 'mpd_agl'"),
        ({"neuron": {"name": "lif", "decay": 2}}, "neuron.decay=2: must be less than 1"),
        ({"norm": {"name": "bn", "gain": 1}}, "unknown key 'norm.gain'"),
        ({"norm": {"eps": 1}}, "norm: a dictionary of options needs a name"),
        ({"method": "ds_atgo", "neuron": "glif"}, "sets the threshold, but neuron 'glif'"),
        ({"time_steps": 0}, "time_steps=0"),
        ({"method": "dspike_adaptive"}, "'dspike_adaptive' chooses a value by finite differences"),
        ({"method": {"name": "asgl", "width_per": "neuron"}}, r"give layer\(channels, space=\(height, width\)\)"),
        ({"engine": "egaer"}, "engine=egaer: must be one of auto, eager"),
    ],
)
def test_mistakes_are_refused(parts: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        SpikingLayers(**parts).layer(4)  # type: ignore[arg-type]


def test_a_method_with_a_value_for_each_neuron() -> None:
    layer = SpikingLayers({"name": "asgl", "width_per": "neuron"}).layer(3, space=(2, 5))
    layer(torch.randn(4, 3, 2, 5)).sum().backward()
    assert layer.method.alpha_raw.grad.shape == (3, 2, 5)


def test_the_automatic_engine(compiled_without_a_compiler: None, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(
        "gradspike.library.layers.choose_engine", lambda name, device: asked.append((name, device)) or "compiled"
    )
    layer = SpikingLayers(engine="auto", device="cpu").layer(8)
    assert asked == [("auto", "cpu")]
    y = torch.randn(8, 8, 2, 2)
    torch.testing.assert_close(layer(y), SpikingLayers().layer(8)(y))


def trainer(**options: object) -> lightning.Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    return lightning.Trainer(**{**quiet, "use_distributed_sampler": False, "max_epochs": 1, **options})  # type: ignore[arg-type]


def test_our_modules_in_a_trainer_of_ones_own(tiny_config: Callable[..., ExperimentConfig], tmp_path: Path) -> None:
    """The weights are those of `gradspike train`, and the checkpoint of Lightning's own callback can be loaded."""
    config = tiny_config("trainer.max_epochs=1", "probe.enabled=false")
    lightning.seed_everything(config.seed, verbose=False)
    module, data = gradspike.SpikingClassifier(config), gradspike.build_data(config)
    own = trainer(default_root_dir=tmp_path)
    own.fit(module, data)
    expected = weights(train(config))
    assert all(
        torch.equal(value, module.state_dict()[name]) for name, value in expected.items() if name.startswith("model.")
    )
    assert module.epoch_metrics["val/loss"] > 0
    (saved,) = tmp_path.rglob("epoch=0*.ckpt")
    net = gradspike.load(saved, device="cpu")
    assert torch.equal(net.model.head.weight, module.model.head.weight)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_epochs": 3}, "The Trainer has max_epochs=3, but the configuration has trainer.max_epochs=1"),
        ({"accumulate_grad_batches": 2}, "accumulate_grad_batches=2, but the configuration has trainer.accumulate=1"),
        ({"gradient_clip_val": 1.0}, "gradient_clip_val=1.0, but the configuration has trainer.gradient_clip=None"),
    ],
)
def test_a_trainer_that_trains_otherwise_is_refused(
    tiny_config: Callable[..., ExperimentConfig], tmp_path: Path, options: dict[str, object], said: str
) -> None:
    config = changed(tiny_config(), "trainer", max_epochs=1)
    with pytest.raises(ConfigError, match=said):
        trainer(default_root_dir=tmp_path, **options).fit(
            gradspike.SpikingClassifier(config), gradspike.build_data(config)
        )


def test_a_callback_that_the_configuration_needs(tiny_config: Callable[..., ExperimentConfig], tmp_path: Path) -> None:
    for words, said in (
        (("method=dspike_adaptive",), r"finite_differences\.FiniteDifferences\(\)"),
        (("trainer.ema=0.9",), r"weight_average\.WeightAverage\(0\.9\)"),
    ):
        config = tiny_config("trainer.max_epochs=1", *words)
        with pytest.raises(ConfigError, match=f"needs the callback gradspike.training.callbacks.{said}. Add it"):
            trainer(default_root_dir=tmp_path).fit(gradspike.SpikingClassifier(config), gradspike.build_data(config))


def test_importing_the_package_imports_no_torch() -> None:
    code = (
        "import sys, gradspike\n"
        "assert 'SpikingLayers' in dir(gradspike) and set(gradspike.__all__) <= set(dir(gradspike))\n"
        "try:\n    gradspike.spikes\n"
        "except AttributeError as error:\n    assert \"no attribute 'spikes'\" in str(error)\n"
        "heavy = {'torch', 'lightning', 'hydra', 'numpy', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT / "src")
    for name in gradspike.__all__:
        assert getattr(gradspike, name) is not None


def test_a_network_without_spiking_layers_has_no_firing_rates() -> None:
    with pytest.raises(ConfigError, match="no spiking layers"), gradspike.firing_rates(torch.nn.Linear(2, 2)):
        pass
