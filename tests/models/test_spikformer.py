"""Spikformer: blocks and network against arrays of the released code, order and exactness of the products, options."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from gradspike.cost.synapses import measure_synapses
from gradspike.models.attention import HeadProduct, SelfAttention
from gradspike.models.feed_forward import FeedForward
from gradspike.models.spikformer import PatchSplitting, Spikformer, SpikformerConfig
from gradspike.spiking_norm import LayerContext
from helpers.block_arrays import (
    Names,
    below,
    compare_block,
    plain,
    time_mean,
    transformer_layers,
)
from helpers.networks import build, changed, config_for
from helpers.plugin_arrays import Case, case, cases, fold

SSA: Names = {
    **{f"{name}_linear": name for name in "qkv"},
    **{f"{name}_bn": f"{name}_neuron.norm" for name in "qkv"},
    "proj_linear": "project",
    "proj_bn": "project_neuron.norm",
}
HEADS = 2
"""Of the released modules' cases; the files do not have it."""
MLP: Names = {f"fc{i}_{part}": our for i in (1, 2) for part, our in (("linear", f"conv{i}"), ("bn", f"neuron{i}.norm"))}
SPS: Names = {
    **{
        f"proj_{part}{i or ''}": f"{our[0]}.{i}{our[1]}"
        for i in range(4)
        for part, our in (("conv", ("convs", "")), ("bn", ("neurons", ".norm")))
    },
    "rpe_conv": "position",
    "rpe_bn": "position_neuron.norm",
}


def tokens(x: Tensor) -> Tensor:
    """[B, T, N, C] as [T*B, C, H, W] of a square."""
    x = fold(x).transpose(1, 2)
    side = round(x.shape[2] ** 0.5)
    return x.unflatten(2, (side, side)).contiguous()


def layers(data: Case) -> LayerContext:
    """Those of the released code; networks take images and have 4 steps."""
    time_steps = (
        data["x"].shape[1] if data["x"].ndim > 4 or (data["x"].ndim == 4 and "init/head.weight" not in data) else 4
    )
    return transformer_layers(time_steps)


@pytest.mark.parametrize("name", cases("spikformer", "init/q_linear.weight"))
def test_attention(name: str) -> None:
    data = case("spikformer", name)
    block = SelfAttention(data["x"].shape[3], HEADS, True, 0.125, layers(data))
    compare_block(block, data, SSA, tokens, tokens)


@pytest.mark.parametrize("name", cases("spikformer", "init/fc1_linear.weight"))
def test_feed_forward(name: str) -> None:
    data = case("spikformer", name)
    hidden, channels = data["init/fc1_linear.weight"].shape
    compare_block(FeedForward(channels, hidden, layers(data)), data, MLP, tokens, tokens)


@pytest.mark.parametrize("name", cases("spikformer", "init/rpe_conv.weight"))
def test_patch_splitting(name: str) -> None:
    data = case("spikformer", name)
    channels = len(data["init/rpe_conv.weight"])
    compare_block(PatchSplitting(data["x"].shape[2], channels, 2, layers(data)), data, SPS, fold, tokens)


NETWORK: Names = {
    **below("patch_embed", "patches", SPS),
    **below("block.0.attn", "blocks.0.attention", SSA),
    **below("block.0.mlp", "blocks.0.feed_forward", MLP),
    "block.0.norm": None,  # layer norms that are never used
    "head": "head",
}


@pytest.mark.parametrize("name", cases("spikformer", "init/head.weight"))
def test_network(name: str) -> None:
    data = case("spikformer", name)
    classes, channels = data["init/head.weight"].shape
    options = {"dim": channels, "depth": 1, "heads": HEADS}
    options["mlp_ratio"] = len(data["init/block.0.mlp.fc1_linear.weight"]) / channels
    config = changed(config_for("spikformer"), "model", **options)
    config = changed(config, "dataset", classes=classes, image_size=data["x"].shape[-1])
    assert isinstance(config.model, SpikformerConfig)
    network = Spikformer(config.model, config.dataset, layers(data))
    compare_block(network, data, NETWORK, plain, plain, time_mean)


@pytest.mark.parametrize(("tokens", "channels"), [((5, 5), 8), ((2, 2), 32), ((4, 4), 32)])
def test_products_take_the_order_that_costs_less(tokens: tuple[int, int], channels: int) -> None:
    """The same counts as q k^T v written out, with no more operations than the better order has."""
    heads, count = 2, math.prod(tokens)
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randint(0, 2, (3, channels, *tokens), generator=generator).float() for _ in range(3))
    product = HeadProduct(heads)
    work: list[int] = []
    for part in (product.first, product.second):
        part.register_forward_hook(lambda _, x, y: work.append(x[0].numel() * x[1].shape[-1]))
    y = product(q, k, v)
    per_head = [x.view(3, heads, -1, count).double() for x in (q, k, v)]
    expected = torch.einsum("bhcn,bhcm,bhdm->bhdn", *per_head).reshape(3, channels, *tokens)
    assert torch.equal(y.double(), expected)
    size = channels // heads
    assert sum(work) == 2 * 3 * heads * min(count**2 * size, count * size**2)


def test_counts_are_exact_in_bf16() -> None:
    """5 x 257 spikes, which bfloat16 cannot hold."""
    ones = torch.ones(1, 5, 1, 257)
    with torch.autocast("cpu", torch.bfloat16):
        assert HeadProduct(1)(ones, ones, ones).unique().tolist() == [5 * 257]


def test_the_products_of_attention_are_accumulates() -> None:
    """Two products in each block, counted dense and by the spikes of their first factor."""
    config = config_for("spikformer")
    model = build(config)
    images = torch.rand(3, 3, config.dataset.image_size, config.dataset.image_size)
    with torch.no_grad():
        for _ in range(100):  # until the running statistics no longer hold their first values
            model(images)
    records = measure_synapses(model, images)
    products = {one["name"]: one for one in records if one["kind"] == "SpikeProduct"}
    assert list(products) == ["blocks.0.attention.product.first", "blocks.0.attention.product.second"]
    options = config.model
    assert isinstance(options, SpikformerConfig)
    size, positions = options.dim // options.heads, (config.dataset.image_size // 4) ** 2
    dense = config.time_steps * options.heads * min(positions**2 * size, positions * size**2)
    for one in products.values():
        assert (one["macs"], one["steps"], one["input"]) == (dense, config.time_steps, "whole")
        assert min(one["nonzero"]) > 0
        assert one["magnitude"] == one["nonzero"]


@pytest.mark.parametrize(
    ("options", "said"),
    [({"dim": 36}, "dim=36: must be a multiple of 8"), ({"dim": 32, "heads": 3}, "heads=3: must divide dim=32")],
)
def test_channels_that_cannot_be_shared_out_are_refused(options: dict[str, int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        changed(config_for("spikformer"), "model", **options)


@pytest.mark.parametrize(
    ("kind", "size", "pools", "expected"),
    [("image", 32, None, 8), ("image", 96, None, 6), ("frames", 32, None, 2), ("image", 32, 0, 32), ("image", 9, 4, 1)],
)
def test_pooling_follows_the_inputs(kind: str, size: int, pools: int | None, expected: int) -> None:
    config = changed(config_for("spikformer", kind=kind), "model", pools=pools)
    model = build(changed(config, "dataset", image_size=size))
    seen: list[int] = []
    model.get_submodule("patches").register_forward_hook(lambda _, x, y: seen.append(y.shape[-1]))
    inputs = torch.rand(1, config.dataset.channels, size, size)
    with torch.no_grad():
        model(inputs if kind == "image" else inputs.expand(config.time_steps, *inputs.shape))
    assert seen == [expected]


@pytest.mark.parametrize(
    ("kind", "size", "options", "expected"),
    [
        ("image", 32, {}, (0.125, True)),
        ("image", 96, {}, (0.125, False)),
        ("frames", 32, {}, (0.25, False)),
        ("frames", 32, {"scale": 0.5, "qkv_bias": True}, (0.5, True)),
    ],
)
def test_scale_and_biases_follow_the_inputs(
    kind: str, size: int, options: dict[str, float], expected: tuple[float, bool]
) -> None:
    config = changed(config_for("spikformer", kind=kind), "model", **options)
    attention = build(changed(config, "dataset", image_size=size)).get_submodule("blocks.0.attention")
    assert isinstance(attention, SelfAttention)
    assert (attention.scale, attention.q.bias is not None) == expected
    assert attention.project.bias is not None
