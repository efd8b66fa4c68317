"""MS-ResNet: its blocks against arrays of the released code, the residual stream, its stems."""

from __future__ import annotations

import pytest
import torch

from gradspike.models.ms_resnet import MsBlock
from gradspike.norms.base import ChannelNorm
from helpers.block_arrays import Names, compare_block, context
from helpers.networks import build, changed, config_for
from helpers.plugin_arrays import case, cases

NEURON: dict[str, object] = {"decay": 0.25, "detach_reset": True, "fires": "above_threshold"}
METHOD: dict[str, object] = {"v_threshold": 0.5, "surrogate": "rectangular", "width": 1.0}
NAMES: Names = {
    "residual_function.1": "conv1",
    "residual_function.2.bn": "neuron2.norm",
    "residual_function.4": "conv2",
    "residual_function.5.bn": "norm2",
    "shortcut.0": "shortcut.0",
    "shortcut.1.bn": "shortcut.1",
}


@pytest.mark.parametrize("name", cases("ms_resnet", "init/residual_function.1.weight"))
def test_blocks_of_the_released_code(name: str) -> None:
    data = case("ms_resnet", name)
    channels_out, channels_in = data["init/residual_function.1.weight"].shape[:2]
    layers = context(data["x"].shape[1], NEURON, METHOD)
    compare_block(MsBlock(channels_in, channels_out, int(data["stride"]), layers), data, NAMES)


@pytest.mark.parametrize("size", [7, 8])
def test_shortcuts_that_pool_take_odd_sizes(size: int) -> None:
    """The mean of a border is over the pixels that are there."""
    layers = context(2, NEURON, METHOD)
    block = MsBlock(3, 4, 2, layers, pooled=True)
    pool = block.shortcut[0]
    ones = torch.ones(2, 3, size, size)
    assert torch.equal(pool(ones), torch.ones(2, 3, 4, 4))
    assert block(ones).shape == (2, 4, 4, 4)


@pytest.mark.parametrize(("size", "stem", "sizes"), [(64, "auto", 64), (96, "auto", 24), (64, "imagenet", 16)])
def test_the_stem_and_the_first_stage_follow_the_image_size(size: int, stem: str, sizes: int) -> None:
    for name in ("ms_resnet18", "ms_resnet104"):
        config = config_for(name, "dataset=image_folder", "dataset.classes=5", f"dataset.image_size={size}")
        model = build(changed(config, "model", stem=stem, depths=(1, 1, 1, 1), width=0.04))
        seen: list[int] = []
        model.get_submodule("blocks.0").register_forward_hook(lambda _, x, y, seen=seen: seen.append(y.shape[-1]))
        with torch.no_grad():
            model(torch.randn(1, 3, size, size))
        assert seen == [sizes]


@pytest.mark.parametrize("zero", [True, False])
def test_the_last_gain_of_each_block_starts_at_zero(zero: bool) -> None:
    """So that a block starts as its shortcut."""
    model = build(changed(config_for("ms_resnet18"), "model", zero_gain=zero))
    norms = [module for name, module in model.named_modules() if name.endswith("norm2")]
    assert len(norms) == 8
    assert all(isinstance(norm, ChannelNorm) and bool((norm.weight == 0).all()) == zero for norm in norms)


def test_neurons_stand_before_the_convolutions() -> None:
    """Inputs of all convolutions but those of the stem and the shortcuts are spikes; the stream is not."""
    model = build(config_for("ms_resnet18"))
    seen: dict[str, bool] = {}
    for name, module in model.named_modules():
        if name.endswith(("conv1", "conv2", "shortcut.0")) or name == "head":
            module.register_forward_hook(
                lambda _, x, y, name=name: seen.__setitem__(name, bool((x[0] == x[0].round()).all()))
            )
    model(torch.randn(3, 3, 8, 8))
    spiking = {name: whole for name, whole in seen.items() if name.endswith(("conv1", "conv2"))}
    assert len(spiking) == 16
    assert all(spiking.values())
    assert not any(whole for name, whole in seen.items() if name.endswith("shortcut.0"))
