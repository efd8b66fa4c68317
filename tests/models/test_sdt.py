"""The Spike-driven Transformer: blocks and network against arrays of the released code, masks, options."""

from __future__ import annotations

import pytest
import torch

from gradspike.models.membrane_feed_forward import MembraneFeedForward
from gradspike.models.sdt import MembranePatches, Sdt, SdtConfig
from gradspike.models.spike_driven_attention import SpikeDrivenAttention
from helpers.block_arrays import (
    Names,
    below,
    compare_block,
    plain,
    time_mean,
    transformer_layers,
)
from helpers.networks import build, changed, config_for
from helpers.plugin_arrays import case, cases

SDSA: Names = {
    **{f"{name}_conv": name for name in "qkv"},
    **{f"{name}_bn": f"{name}_neuron.norm" for name in "qkv"},
    "talking_heads": None,  # never used
    "proj_conv": "project",
    "proj_bn": "project_norm",
}
MLP: Names = {"fc1_conv": "conv1", "fc1_bn": "neuron2.norm", "fc2_conv": "conv2", "fc2_bn": "norm2"}
SPS: Names = {
    **{f"proj_conv{i or ''}": f"convs.{i}" for i in range(4)},
    **{f"proj_bn{i or ''}": f"neurons.{i}.norm" for i in range(3)},
    "proj_bn3": "norm",
    "rpe_conv": "position",
    "rpe_bn": "position_norm",
}
NETWORK: Names = {
    **below("patch_embed", "patches", SPS),
    **below("block.0.attn", "blocks.0.attention", SDSA),
    **below("block.0.mlp", "blocks.0.feed_forward", MLP),
    "head": "head",
}
STEPS = 4
"""Of the network's case, which has images and logits alone."""


@pytest.mark.parametrize("name", cases("sdt", "init/q_conv.weight"))
def test_attention(name: str) -> None:
    data = case("sdt", name)
    block = SpikeDrivenAttention(data["x"].shape[2], 2, False, transformer_layers(data["x"].shape[1]))
    compare_block(block, data, SDSA)


@pytest.mark.parametrize("name", cases("sdt", "init/fc1_conv.weight"))
def test_feed_forward(name: str) -> None:
    data = case("sdt", name)
    hidden, channels = data["init/fc1_conv.weight"].shape[:2]
    compare_block(MembraneFeedForward(channels, hidden, transformer_layers(data["x"].shape[1])), data, MLP)


@pytest.mark.parametrize("name", cases("sdt", "init/rpe_conv.weight"))
def test_patches(name: str) -> None:
    data = case("sdt", name)
    halvings = (data["x"].shape[-1] // data["out"].shape[-1]).bit_length() - 1
    channels = len(data["init/rpe_conv.weight"])
    compare_block(
        MembranePatches(data["x"].shape[2], channels, halvings, transformer_layers(data["x"].shape[1])), data, SPS
    )


@pytest.mark.parametrize("name", cases("sdt", "init/head.weight"))
def test_network(name: str) -> None:
    data = case("sdt", name)
    classes, channels = data["init/head.weight"].shape
    ratio = len(data["init/block.0.mlp.fc1_conv.weight"]) / channels
    config = changed(config_for("sdt"), "model", dim=channels, depth=1, heads=2, mlp_ratio=ratio)
    config = changed(config, "dataset", classes=classes, image_size=data["x"].shape[-1])
    assert isinstance(config.model, SdtConfig)
    compare_block(Sdt(config.model, config.dataset, transformer_layers(STEPS)), data, NETWORK, plain, plain, time_mean)


def spikes(*shape: int) -> torch.Tensor:
    return torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(0)).float()


def test_pooling_of_the_form_for_events() -> None:
    """The released layout is [positions, channels] of each head, so windows have neighbouring channels too."""
    attention = SpikeDrivenAttention(6, 2, True, transformer_layers(1))
    x = spikes(2, 6, 2, 2)
    expected = torch.nn.functional.max_pool2d(x.view(2, 2, 3, 4), 3, 1, 1).view_as(x)
    assert torch.equal(attention._pooled_heads(x), expected)
    assert not torch.equal(expected, x)
    seen: list[torch.Tensor] = []
    attention.total.register_forward_hook(lambda _, inputs, y: seen.extend([inputs[0].squeeze(2), y.flatten(1)]))
    attention(torch.randn(2, 6, 2, 2)).sum().backward()
    assert torch.equal(seen[0].sum(2), seen[1])
    assert all(one.grad is not None for one in attention.parameters())


@pytest.mark.parametrize(
    ("kind", "option", "pooled"), [("image", None, False), ("frames", None, True), ("frames", False, False)]
)
def test_pooling_follows_the_inputs(kind: str, option: bool | None, pooled: bool) -> None:
    model = build(changed(config_for("sdt", kind=kind), "model", attention_pooling=option))
    attention = model.get_submodule("blocks.0.attention")
    assert isinstance(attention, SpikeDrivenAttention)
    assert (attention.pool is not None) == pooled


def test_as_many_hidden_channels_have_a_residual_of_their_own() -> None:
    """x is added after the first convolution, and that sum to the output."""
    block = MembraneFeedForward(4, 4, transformer_layers(1))
    x = torch.randn(2, 4, 3, 3)
    seen: dict[str, torch.Tensor] = {}
    for name in ("norm1", "norm2", "neuron2"):
        part = block.get_submodule(name)
        part.register_forward_hook(lambda _, inputs, y, name=name: seen.update({name: y, f"{name} in": inputs[0]}))
    out = block(x)
    assert torch.equal(seen["neuron2 in"], x + seen["norm1"])
    assert torch.equal(out, x + seen["norm1"] + seen["norm2"])
