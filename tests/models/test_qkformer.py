"""QKFormer: blocks and network against arrays of the released code, the state of its self-attention, options."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gradspike.errors import ConfigError
from gradspike.models.across_samples import AcrossSamples
from gradspike.models.attention import SelfAttention
from gradspike.models.feed_forward import FeedForward
from gradspike.models.qkformer import QkFormer, QkFormerConfig
from gradspike.models.spiking_embedding import SpikingEmbedding
from gradspike.models.token_attention import TokenAttention
from gradspike.norms.base import ChannelNorm
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

HEADS = 8
"""Of the released network, which overwrites the option."""
BLOCK_HEADS = 2
"""Of the cases of single blocks. The files do not have it."""
STEPS = 4
"""Of the network's case, which has images and logits alone."""
ATTENTION: Names = {
    **{f"{name}_conv": name for name in "qkv"},
    **{f"{name}_bn": f"{name}_neuron.norm" for name in "qkv"},
    "proj_conv": "project",
    "proj_bn": "project_neuron.norm",
}
MLP: Names = {f"mlp{i}_{part}": our for i in (1, 2) for part, our in (("conv", f"conv{i}"), ("bn", f"neuron{i}.norm"))}
SHORTCUT: Names = {"proj_res_conv": "shortcut", "proj_res_bn": "shortcut_neuron.norm"}
FIRST: Names = {
    "proj_conv": "layers.0.conv",
    "proj_bn": "layers.0.neuron.norm",
    "proj1_conv": "layers.1.conv",
    "proj1_bn": "layers.1.neuron.norm",
    **SHORTCUT,
}
NEXT: Names = {
    "proj3_conv": "layers.0.conv",
    "proj3_bn": "layers.0.neuron.norm",
    "proj4_conv": "layers.1.conv",
    "proj4_bn": "layers.1.norm",
    **SHORTCUT,
}


@pytest.mark.parametrize("name", cases("qkformer", "init/q_conv.weight", lacks=("init/v_conv.weight",)))
def test_token_attention(name: str) -> None:
    data = case("qkformer", name)
    channels = data["x"].shape[2]
    compare_block(TokenAttention(channels, BLOCK_HEADS, transformer_layers(data["x"].shape[1])), data, ATTENTION)


@pytest.mark.parametrize("name", cases("qkformer", "init/v_conv.weight"))
def test_self_attention(name: str) -> None:
    """As released, the potential of the last neuron goes on from sample to sample; by default each has its own."""
    data = case("qkformer", name)
    channels, carried = data["x"].shape[2], not name.endswith("per_sample")
    block = SelfAttention(channels, BLOCK_HEADS, False, 0.125, transformer_layers(data["x"].shape[1]), carried)
    compare_block(block, data, ATTENTION)


@pytest.mark.parametrize("name", cases("qkformer", "init/mlp1_conv.weight"))
def test_feed_forward(name: str) -> None:
    data = case("qkformer", name)
    hidden, channels = data["init/mlp1_conv.weight"].shape[:2]
    compare_block(FeedForward(channels, hidden, transformer_layers(data["x"].shape[1])), data, MLP)


@pytest.mark.parametrize("name", cases("qkformer", "init/proj1_conv.weight"))
def test_the_first_embedding(name: str) -> None:
    data = case("qkformer", name)
    width = len(data["init/proj1_conv.weight"])
    steps = [(width // 2, False), (width, False)]
    compare_block(SpikingEmbedding(data["x"].shape[2], steps, 1, transformer_layers(data["x"].shape[1])), data, FIRST)


@pytest.mark.parametrize("name", cases("qkformer", "init/proj3_conv.weight"))
def test_a_further_embedding(name: str) -> None:
    data = case("qkformer", name)
    width = len(data["init/proj3_conv.weight"])
    steps = [(width, False), (width, True)]
    compare_block(SpikingEmbedding(data["x"].shape[2], steps, 0, transformer_layers(data["x"].shape[1])), data, NEXT)


def network_names(last_blocks: int) -> Names:
    found: dict[str, str | None] = {**below("patch_embed1", "embeddings.0", FIRST), "head": "head"}
    for stage in (2, 3):
        found |= below(f"patch_embed{stage}", f"embeddings.{stage - 1}", NEXT)
    for stage, block, kind in [(1, 0, "tssa"), (2, 0, "tssa"), *((3, block, "ssa") for block in range(last_blocks))]:
        ours = f"stages.{stage - 1}.{block}"
        found |= below(f"stage{stage}.{block}.{kind}", f"{ours}.attention", ATTENTION)
        found |= below(f"stage{stage}.{block}.mlp", f"{ours}.feed_forward", MLP)
    return found


@pytest.mark.parametrize("name", cases("qkformer_network", "init/head.weight"))
def test_network(name: str) -> None:
    data = case("qkformer_network", name)
    classes, dim = data["init/head.weight"].shape
    last = len({key.split(".")[1] for key in data if key.startswith("init/stage3.")})
    ratio = len(data["init/stage1.0.mlp.mlp1_conv.weight"]) / (dim // 4)
    options = {"dim": dim, "depth": 2 + last, "heads": HEADS, "mlp_ratio": ratio}
    config = changed(config_for("qkformer"), "model", **options, attention_state="as_released")
    config = changed(config, "dataset", classes=classes, image_size=data["x"].shape[-1])
    assert isinstance(config.model, QkFormerConfig)
    network = QkFormer(config.model, config.dataset, transformer_layers(STEPS))
    compare_block(network, data, network_names(last), plain, plain, time_mean)


def test_only_as_released_a_sample_depends_on_its_batch() -> None:
    x = torch.randint(0, 3, (2, 5, 16, 3, 3), generator=torch.Generator().manual_seed(0)).float()
    alone = x[:, :1]
    for carried in (False, True):
        torch.manual_seed(0)
        attention = SelfAttention(16, 4, False, 0.125, transformer_layers(2), carried)
        for layer in attention.modules():
            if isinstance(layer, ChannelNorm):  # so that neurons fire, also below the first running statistics
                torch.nn.init.constant_(layer.bias, 1.5)
        attention.eval()
        batch: Tensor = attention(x.flatten(0, 1)).unflatten(0, (2, 5))[:, :1]
        assert torch.equal(attention(alone.flatten(0, 1)).unflatten(0, (2, 1)), batch) != carried


def test_as_released_needs_parts_without_steps() -> None:
    model = {"attention_state": "as_released"}
    with pytest.raises(ConfigError, match="attention_state=as_released: not with method mpd_agl"):
        build(changed(config_for("qkformer", "method=mpd_agl"), "model", **model))
    with pytest.raises(ConfigError, match="and norm tebn"):
        build(changed(config_for("qkformer", "method=fixed_sg", "norm=tebn"), "model", **model))
    network = build(changed(config_for("qkformer", "method=fixed_sg"), "model", **model))
    assert sum(isinstance(layer, AcrossSamples) for layer in network.modules()) == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"dim": 36}, "model.dim=36: must be a multiple of 8"),
        ({"dim": 64, "heads": 5}, "model.heads=5: must divide the 16 channels"),
        ({"depth": 2}, "model.depth=2: the form for cifar needs 3 blocks or more"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(options: dict[str, int], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build(changed(config_for("qkformer"), "model", **options))


@pytest.mark.parametrize(("form", "sizes"), [("cifar", [13, 7, 4]), ("imagenet", [4, 2, 1]), ("events", [2, 1])])
def test_sizes_of_the_stages(form: str, sizes: list[int]) -> None:
    """Also of odd images."""
    model = build(changed(config_for("qkformer"), "model", form=form, depth=4))
    seen: list[int] = []
    for part in model.get_submodule("stages").children():
        part.register_forward_hook(lambda _, x, y: seen.append(y.shape[-1]))
    with torch.no_grad():
        model(torch.randn(1, 3, 13, 13))
    assert seen == sizes
