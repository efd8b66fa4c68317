"""Parameters of the published configurations, counted on the authors' classes. With `neuron=lif`, which learns none."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from gradspike.config.compose import load_config
from gradspike.training.build import build_model

PAGE = Path(__file__).parents[2] / "docs" / "networks.md"

IMAGENET = {
    "sew_resnet18": 11_689_512,
    "sew_resnet34": 21_797_672,
    "sew_resnet50": 25_557_032,
    "sew_resnet101": 44_549_160,
    "sew_resnet152": 60_192_808,
    "ms_resnet18": 11_693_736,
    "ms_resnet34": 21_801_896,
    "ms_resnet104": 77_350_504,
}
QKFORMER = [
    (6_706_234, "dataset=cifar10 model=qkformer"),
    (6_740_884, "dataset=cifar100 model=qkformer"),
    (16_473_688, "dataset=imagenet model=qkformer model.dim=384"),
    (29_079_336, "dataset=imagenet model=qkformer"),
    (64_962_760, "dataset=imagenet model=qkformer model.dim=768"),
    (1_504_138, "dataset=cifar10dvs model=qkformer"),
]
OTHERS = [
    (9_476_298, "dataset=cifar10dvs model=vgg11"),
    (9_231_114, "dataset=cifar10 model=vgg11 model.grid=1"),
    (14_974_026, "dataset=cifar10 model=vgg16"),
    (14_728_266, "dataset=cifar10 model=vgg16 model.grid=1"),
    (14_428_680, "dataset=tiny_imagenet model=vgg13 model.bias=true model.grid=7"),
    (9_271_498, "dataset=cifar10dvs model=vggsnn model.bias=true"),
    (6_035_648, "dataset=cifar10 model=vgg9 norm=tebn time_steps=4"),
]
SPIKFORMER = {  # counted there, blocks, channels and heads
    "cifar10": [(9_330_874, 4, 384, 12), (5_768_122, 2, 384, 12), (4_159_274, 4, 256, 8), (2_570_538, 2, 256, 8)],
    "cifar100": [(9_365_524, 4, 384, 12), (5_802_772, 2, 384, 12), (4_182_404, 4, 256, 8), (2_593_668, 2, 256, 8)],
    "imagenet": [
        (16_828_312, 8, 384, 12),
        (23_385_640, 6, 512, 8),
        (29_705_768, 8, 512, 8),
        (36_025_896, 10, 512, 8),
        (66_363_208, 8, 768, 12),
    ],
    "cifar10dvs": [(2_585_610, 2, 256, 16)],
}


def spikformer(data: str, counted: int, depth: int, dim: int, heads: int) -> tuple[int, str]:
    """Our parameters: without what the released classes count and never use, the two layer norms of each block and, for
    events, one more and a position embedding of 64 tokens.
    """
    unused = 4 * dim * depth + (66 * dim if data == "cifar10dvs" else 0)
    default = {"depth": 4, "dim": 384, "heads": 12}
    chosen = {"depth": depth, "dim": dim, "heads": heads}
    words = [f"model.{key}={value}" for key, value in chosen.items() if value != default[key]]
    return counted - unused, " ".join([f"dataset={data}", "model=spikformer", *words])


SDT = {  # counted there, blocks and channels
    "cifar10": [(10_233_546, 2, 512), (2_567_082, 2, 256)],
    "cifar100": [(10_279_716, 2, 512), (2_590_212, 2, 256)],
    "imagenet": [
        (16_816_536, 8, 384),
        (23_373_736, 6, 512),
        (29_689_896, 8, 512),
        (36_006_056, 10, 512),
        (66_339_144, 8, 768),
    ],
    "cifar10dvs": [(2_566_794, 2, 256)],
}


def sdt(data: str, counted: int, depth: int, dim: int) -> tuple[int, str]:
    """Our parameters: without a convolution over 8 heads in each block, which is counted there and never used."""
    words = [f"model.depth={depth}"] * (depth != 2) + [f"model.dim={dim}"] * (dim != 512)
    return counted - 64 * depth, " ".join([f"dataset={data}", "model=sdt", *words])


PUBLISHED = [(count, f"dataset=imagenet model={model}") for model, count in IMAGENET.items()] + OTHERS + QKFORMER
PUBLISHED += [spikformer(data, *row) for data, rows in SPIKFORMER.items() for row in rows]
PUBLISHED += [sdt(data, *row) for data, rows in SDT.items() for row in rows]


def table() -> list[tuple[int, str]]:
    """Parameters and command line of each row of the page; a row without a name is of the network above it."""
    rows, name = [], ""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        found = re.fullmatch(r"\| (?:`(\w+)`)? *\|.*\| ([\d,]+) \| `(.+)` \|", line)
        if found:
            name = found[1] or name
            words = found[3].split()
            rows.append((int(found[2].replace(",", "")), " ".join([words[0], f"model={name}", *words[1:]])))
    return rows


def test_the_page_has_the_published_networks() -> None:
    assert set(PUBLISHED) <= set(table())


@pytest.mark.parametrize(("count", "words"), table(), ids=[words for _, words in table()])
def test_parameters_of_the_released_networks(count: int, words: str) -> None:
    config = load_config(["recipe=none", "engine=eager", "neuron=lif", *words.split()])
    with torch.device("meta"):
        model = build_model(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == count
