"""RandAugment, colour jitter and random erasing in batches against timm and torchvision, which take image by image."""

from __future__ import annotations

import math
import random as python_random
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from scipy.stats import ks_2samp
from timm.data.auto_augment import AugmentOp, rand_augment_transform
from timm.data.random_erasing import RandomErasing
from torch import Tensor
from torchvision.transforms import ColorJitter

from gradspike.config.compose import load_config
from gradspike.data.augment import pillow
from gradspike.data.augment.batch import BatchTransform
from gradspike.data.augment.color_jitter import color_jitter
from gradspike.data.augment.counter_random import CounterRandom
from gradspike.data.augment.draws import Draw
from gradspike.data.augment.rand_augment import GEOMETRY, RandAugment, amount, apply
from gradspike.data.augment.random_erasing import random_erasing
from gradspike.data.options.pictures import Cifar10Config, DigitsConfig, ImageAugmentConfig
from gradspike.data.options.rand_augment import OPERATIONS, SETS, rand_policy
from gradspike.errors import ConfigError
from helpers.picture_samples import photographs

FILL = (125, 123, 114)
LIKELY = 1e-3
"""Smallest p-value of samples that have the same distribution; seeds are fixed, so it is the same in every run."""
TIMM_NAMES = {
    **{name: f"{name}Increasing" for name in ("Posterize", "Solarize", "Color", "Contrast", "Brightness", "Sharpness")},
    **{name: f"{name}Rel" for name in ("TranslateX", "TranslateY")},
}


def as_pil(picture: Tensor) -> Image.Image:
    return Image.fromarray(picture.permute(1, 2, 0).numpy())


def as_tensor(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def hparams(spread: float = 0.0) -> dict[str, Any]:
    return {"img_mean": FILL, "interpolation": Image.Resampling.BICUBIC, "magnitude_std": spread}


def host(count: int, seed: int = 0) -> CounterRandom[Any]:
    return CounterRandom.per_sample(seed, 0, np.arange(count))


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("size", [(32, 32), (19, 30)])
def test_every_operation_equals_timm_on_each_image_alone(
    name: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the magnitudes from 0 to 9.9: at 10, timm's posterize keeps no bit, which newer Pillows refuse."""
    pictures = photographs(6, *size)
    levels, signs = np.array([0.0, 1.0, 3.7, 6.2, 9.0, 9.9]), np.array([1.0, -1.0, 1.0, -1.0, 1.0, -1.0])
    result = apply(name, pictures, amount(name, levels, signs), FILL)
    for picture, level, sign, ours in zip(pictures, levels, signs, result, strict=True):
        monkeypatch.setattr(python_random, "random", lambda sign=sign: 0.25 if sign > 0 else 0.75)
        theirs = AugmentOp(TIMM_NAMES.get(name, name), prob=1.0, magnitude=level, hparams=hparams())
        assert torch.equal(ours, as_tensor(theirs(as_pil(picture)))), (level, sign)


def test_a_posterized_image_without_bits_is_black() -> None:
    """As in the Pillow that transformers were trained with."""
    assert not apply("Posterize", photographs(2, 8, 8), amount("Posterize", np.full(2, 10.0), np.ones(2)), FILL).any()


def test_grey_images_are_those_of_pillow() -> None:
    pictures = photographs(4, 16, 16)[:, :1]
    factors = torch.tensor([0.3, 0.9, 1.2, 1.8], dtype=torch.float64)
    for ours, name in ((pillow.contrast, "Contrast"), (pillow.color, "Color"), (pillow.sharpness, "Sharpness")):
        for picture, factor, result in zip(pictures, factors, ours(pictures, factors), strict=True):
            theirs = getattr(ImageEnhance, name)(Image.fromarray(picture[0].numpy())).enhance(float(factor))
            assert torch.equal(result[0], torch.from_numpy(np.array(theirs))), name


FEATURES: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda x: x.mean((1, 2, 3)),
    "spread": lambda x: x.std((1, 2, 3)),
    "colour": lambda x: x.std(1).mean((1, 2)),
    "left to right": lambda x: (x.mean((1, 2)) * torch.arange(x.shape[3])).sum(1) / x.mean((1, 2)).sum(1).clamp(min=1),
    "top to bottom": lambda x: (x.mean((1, 3)) * torch.arange(x.shape[2])).sum(1) / x.mean((1, 3)).sum(1).clamp(min=1),
}


def least_likely(ours: Tensor, theirs: Tensor) -> float:
    """The smallest p-value of Kolmogorov and Smirnov's test over features of images [n, C, H, W]."""
    return min(
        float(ks_2samp(feature(ours.double()).numpy(), feature(theirs.double()).numpy()).pvalue)
        for feature in FEATURES.values()
    )


def timm_rand(name: str, picture: Tensor, count: int) -> Tensor:
    operations = [TIMM_NAMES.get(one, one) for one in SETS["snn"]] if name.endswith("-tsnn") else None
    options = {"img_mean": FILL, "interpolation": Image.Resampling.BICUBIC}
    transform = rand_augment_transform(name.removesuffix("-tsnn"), options, operations)
    python_random.seed(3)
    np.random.seed(3)  # noqa: NPY002
    return torch.stack([as_tensor(transform(as_pil(picture))) for _ in range(count)])


@pytest.mark.parametrize("name", ["rand-m8-n1-mstd0.4-inc1", "rand-m5-mstd0.5-inc1", "rand-m6-n3-p0.8-inc1-tsnn"])
def test_policies_have_the_distribution_of_timm(name: str) -> None:
    """Of one image, so all that differs is drawn; magnitudes far enough from 10 for Pillow's posterize."""
    picture, count = photographs(6, 16, 16)[5], 600
    ours = RandAugment(rand_policy(name), FILL)(picture.expand(count, -1, -1, -1), host(count))
    assert least_likely(ours, timm_rand(name, picture, count)) > LIKELY
    assert picture.dtype == ours.dtype


def test_the_comparison_of_distributions_notices_other_policies() -> None:
    picture, count = photographs(6, 16, 16)[5], 600
    ours = RandAugment(rand_policy("rand-m8-n1-mstd0.4-inc1"), FILL)(picture.expand(count, -1, -1, -1), host(count))
    for other in ("rand-m2-n1-mstd0.4-inc1", "rand-m8-n2-mstd0.4-inc1", "rand-m8-n1-p0.9-mstd0.4-inc1"):
        assert least_likely(ours, timm_rand(other, picture, count)) < LIKELY, other


def test_operations_signs_and_magnitudes_are_drawn_independently() -> None:
    policy = RandAugment(rand_policy("rand-m9-n2-mstd0.5-inc1"), FILL)
    first, second = (policy.choose(host(6000), place) for place in range(2))
    share = np.bincount(first[0] + 1, minlength=len(OPERATIONS) + 1) / 6000
    assert share[0] == pytest.approx(0.5, abs=0.03)
    assert share[1:] == pytest.approx(np.full(len(OPERATIONS), 0.5 / len(OPERATIONS)), abs=0.012)
    assert first[1].max() == 10.0
    assert float((first[1] == 10).mean()) == pytest.approx(0.5 * math.erfc(2 / math.sqrt(2)), abs=0.01)
    assert first[1][first[1] < 10].std() == pytest.approx(0.47, abs=0.02)
    rows = np.stack([np.stack(draws).astype(float) for draws in (first, second)]).reshape(6, -1)
    assert np.abs(np.corrcoef(rows) - np.eye(6)).max() < 0.05


def test_colour_jitter_has_the_distribution_of_torchvision() -> None:
    picture, count = photographs(6, 16, 16)[5], 500
    ours = color_jitter(picture.expand(count, -1, -1, -1), 0.4, host(count))
    results = {}
    for value in (0.4, 0.2):
        torch.manual_seed(1)
        jitter = ColorJitter(value, value, value)
        results[value] = torch.stack([as_tensor(jitter(as_pil(picture))) for _ in range(count)])
    assert least_likely(ours, results[0.4]) > LIKELY
    assert least_likely(ours, results[0.2]) < LIKELY


def test_colour_jitter_does_what_its_numbers_say() -> None:
    pictures, random = photographs(40, 9, 9), host(40)
    result = color_jitter(pictures, 0.5, random)
    order = random.integers(Draw.JITTER_ORDER, 0, 5)
    for number in (4, 17, 33):
        picture = pictures[number : number + 1]
        orders = [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
        for which in orders[order[number]]:
            operation = (pillow.brightness, pillow.contrast, pillow.color)[which]
            drawn = random.uniform(Draw.JITTER_BRIGHTNESS + which)[number]
            picture = operation(picture, torch.tensor([0.5 + drawn]))
        assert torch.equal(result[number], picture[0])


@pytest.mark.parametrize("size", [(32, 32), (8, 8), (12, 20)])
def test_rectangles_have_the_distribution_of_timm(size: tuple[int, int]) -> None:
    count = 800
    python_random.seed(1)
    theirs = RandomErasing(0.7, mode="const", device="cpu")(torch.ones(count, 3, *size))
    ours = random_erasing(torch.ones(count, 3, *size), 0.7, "zero", CounterRandom.per_sample(1, 0, torch.arange(count)))
    assert set(ours.unique().tolist()) == {0.0, 1.0}
    gone = [(1 - values[:, 0]) for values in (ours, theirs)]
    facts = [
        [
            whole.sum((1, 2)),
            whole.amax(1).sum(1),
            whole.amax(2).sum(1),
            *(whole.amax(axis).argmax(1) for axis in (1, 2)),
        ]
        for whole in gone
    ]
    for mine, other in zip(*facts, strict=True):
        assert ks_2samp(mine.numpy(), other.numpy()).pvalue > LIKELY
    assert ks_2samp(facts[0][0].numpy(), facts[1][0].numpy() * 1.3).pvalue < LIKELY


@pytest.mark.parametrize("fill", ["channel", "pixel"])
def test_noise_is_standard_normal(fill: Any) -> None:
    count = 400
    values = torch.full((count, 3, 10, 10), 50.0)
    result = random_erasing(values, 1.0, fill, CounterRandom.per_sample(0, 0, torch.arange(count)))
    noise = result[result != 50]
    assert noise.mean().item() == pytest.approx(0, abs=0.1)
    assert noise.std().item() == pytest.approx(1, abs=0.05)
    of_one = result[0, 0][result[0, 0] != 50]
    assert (len(of_one.unique()) == 1) == (fill == "channel")
    assert len({round(float(x), 5) for x in result[:, 0][result[:, 0] != 50]}) > count / 2


def test_they_follow_flip_and_precede_erasing() -> None:
    """The mean colour moves in, which is about zero after normalisation, and erased pixels are exactly zero."""
    policy = "rand-m9-n1-p1-inc1"
    config = Cifar10Config(augment=ImageAugmentConfig(shift=0, flip=False, rand_augment=policy, random_erasing=1.0))
    pictures, index = photographs(60, 32, 32), torch.arange(60)
    result = BatchTransform(config, seed=2)(pictures, index, 1)
    random: CounterRandom[Any] = CounterRandom.per_sample(2, 1, index.numpy())
    mean, std = (torch.tensor(values).view(3, 1, 1) * 255 for values in (config.mean, config.std))
    plain = RandAugment(rand_policy(policy), FILL)(pictures, random)
    normal = (plain.float() - mean) / std
    erased = random_erasing(normal.clone(), 1.0, "zero", CounterRandom.per_sample(2, 1, index))
    torch.testing.assert_close(result, erased)
    assert ((result == 0) & (normal != 0)).flatten(1).any(1).all()
    moved = np.flatnonzero(np.isin(RandAugment(rand_policy(policy), FILL).choose(random, 0)[0], [
        OPERATIONS.index(name) for name in GEOMETRY
    ]))  # fmt: skip
    corners = normal[torch.from_numpy(moved)][..., [0, 0, -1, -1], [0, -1, 0, -1]].abs().amax(1).amin(1)
    assert (corners < 0.01).float().mean() > 0.5


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("randm9", "must be the name of a policy as in timm, for example rand-m9-n1-mstd0.4-inc1"),
        ("rand-m9-q3-inc1", "'q3' is not understood. Allowed: m, n, mstd, p and inc, each with a number as in timm"),
        ("rand-m9-inc1-tsnn-tsnn", "has two sets of operations"),
        ("rand-m9-tweights-inc1", "'tweights' is not understood"),
        ("rand-m11-inc1", "m11: must be 0 to 10"),
        ("rand-m9-n0-inc1", "n0: must be 1 to 8"),
        ("rand-m9.5-inc1", "m9.5: must be a whole number"),
        ("rand-m9-p2-inc1", "p2: must be 0 to 1"),
        ("rand-m9-m8-inc1", "has 'm' twice"),
        ("rand-m9-mstd0.5", "needs inc1"),
        ("rand-m9-inc0", "needs inc1"),
    ],
)
def test_names_that_are_no_policy(value: str, said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"dataset.augment.rand_augment={value}: {said}")):
        load_config([f"dataset.augment.rand_augment={value}"])


def test_names_have_the_defaults_of_timm() -> None:
    policy = rand_policy("rand-inc1")
    theirs = rand_augment_transform("rand-inc1", {})
    assert (policy.count, policy.magnitude) == (theirs.num_layers, theirs.ops[0].magnitude)
    assert (policy.probability, policy.spread) == (theirs.ops[0].prob, theirs.ops[0].magnitude_std)
    assert {TIMM_NAMES.get(name, name) for name in OPERATIONS} == {operation.name for operation in theirs.ops}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["dataset=cifar10", "dataset.augment.rand_augment=rand-m9-inc1"], "set one of them to null"),
        (["dataset.augment.erasing_fill=pixel"], "erasing_fill=pixel needs random_erasing above 0"),
        (["dataset.augment.random_erasing=1.5"], "random_erasing=1.5"),
        (["dataset.augment.color_jitter=-1"], "color_jitter=-1"),
        (["dataset=digits_events", "dataset.augment.rand_augment=rand-m9-inc1"], "values of events are counts"),
        (["dataset=cifar10dvs", "+dataset.augment.random_erasing=0.25"], "values of events are counts"),
        (["dataset=shd", "dataset.augment.color_jitter=0.4"], "values of events are counts"),
    ],
)
def test_combinations_that_are_refused(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        load_config(words)


def test_images_of_one_channel_and_without_a_mean() -> None:
    config = DigitsConfig(
        normalize="unit", augment=ImageAugmentConfig(rand_augment="rand-m9-n4-p1-inc1", color_jitter=0.4)
    )
    pictures = photographs(30, 8, 8)[:, :1]
    result = BatchTransform(config, 0)(pictures, torch.arange(30), 0)
    assert result.shape == pictures.shape
    assert ((result >= 0) & (result <= 1)).all()
    assert (result != pictures / 255).flatten(1).any(1).float().mean() > 0.9
