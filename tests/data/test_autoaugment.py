"""AutoAugment in batches against torchvision and PIL, image by image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import AutoAugment as TorchvisionAutoAugment
from torchvision.transforms.v2 import AutoAugmentPolicy, InterpolationMode

from gradspike.data.augment.autoaugment import AutoAugment, magnitude
from gradspike.data.augment.counter_random import CounterRandom
from gradspike.data.augment.picture_operations import KINDS, Operation, PictureOperations
from gradspike.data.augment.policies import MAGNITUDES, POLICIES, SIGNED
from helpers.picture_samples import photographs

TORCHVISION = TorchvisionAutoAugment()
WITHOUT_MAGNITUDE = {"AutoContrast", "Equalize", "Invert", "Identity"}


def alone(picture: Tensor | Image.Image, operation: Operation) -> Tensor:
    """torchvision's result for one image: a tensor, or a PIL image that becomes one."""
    name, size = operation
    if name != "Identity":
        nearest = InterpolationMode.NEAREST
        picture = TORCHVISION._apply_image_or_video_transform(picture, name, size, nearest, TORCHVISION._fill)
    return picture if isinstance(picture, Tensor) else torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def as_pil(picture: Tensor) -> Image.Image:
    return Image.fromarray(picture.permute(1, 2, 0).numpy())


def every_operation(height: int, width: int) -> list[Operation]:
    operations: list[Operation] = []
    for name in KINDS:
        steps = [None] if name in WITHOUT_MAGNITUDE else range(MAGNITUDES)
        for step in steps:
            size = magnitude(name, step, height, width)
            operations += [(name, size), (name, -size)] if name in SIGNED else [(name, size)]
    return operations


def all_at_once(pictures: Tensor, operations: list[Operation]) -> Tensor:
    """Every operation on every image, in one batch in random order: [operations, images, C, H, W]."""
    numbers = np.repeat(np.arange(len(operations)), len(pictures))
    order = np.random.default_rng(0).permutation(len(numbers))
    batch = pictures.repeat(len(operations), 1, 1, 1)
    result = torch.empty_like(batch)
    result[order] = PictureOperations(operations).apply(batch[order], numbers[order])
    return result.view(len(operations), *pictures.shape)


@pytest.mark.parametrize("name", POLICIES)
def test_the_policies_are_those_of_torchvision(name: str) -> None:
    assert list(POLICIES[name]) == TorchvisionAutoAugment(AutoAugmentPolicy(name))._policies


@pytest.mark.parametrize("size", [(32, 32), (64, 64), (224, 224), (30, 41)])
def test_magnitudes_are_those_of_torchvision(size: tuple[int, int]) -> None:
    for name, (values, signed) in TorchvisionAutoAugment._AUGMENTATION_SPACE.items():
        expected = values(MAGNITUDES, *size)
        assert (name in SIGNED) == signed
        for step in range(MAGNITUDES):
            if expected is None:
                assert magnitude(name, None, *size) == 0.0
            else:
                assert magnitude(name, step, *size) == float(expected[step])


@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 47), (64, 64)])
def test_every_operation_equals_torchvision_on_each_picture_alone(height: int, width: int) -> None:
    pictures, operations = photographs(6, height, width), every_operation(height, width)
    results = all_at_once(pictures, operations)
    for operation, of_operation in zip(operations, results, strict=True):
        for picture, result in zip(pictures, of_operation, strict=True):
            assert torch.equal(result, alone(picture, operation)), operation


def test_grey_pictures_equal_torchvision() -> None:
    pictures, operations = photographs(6, 16, 16)[:, :1], every_operation(16, 16)
    for operation, of_operation in zip(operations, all_at_once(pictures, operations), strict=True):
        for picture, result in zip(pictures, of_operation, strict=True):
            assert torch.equal(result, alone(picture, operation)), operation


def test_pil_differs_by_rounding_only() -> None:
    """Exactly equal but for: one level in blends and AutoContrast, two in Contrast, whose mean PIL rounds as well; the
    value at a solarizing threshold; pixels whose source lies half way between two, in rotation and shear.
    """
    pictures, operations = photographs(6, 32, 32), every_operation(32, 32)
    moved = {"ShearX": 0.1, "ShearY": 0.1, "Rotate": 0.002}
    levels = {"Contrast": 2, "Color": 1, "Sharpness": 1, "AutoContrast": 1}
    for (name, size), of_operation in zip(operations, all_at_once(pictures, operations), strict=True):
        for picture, result in zip(pictures, of_operation, strict=True):
            expected = alone(as_pil(picture), (name, size))
            different = result != expected
            if name in moved:
                assert different.float().mean() <= moved[name], (name, size)
            elif name in levels:
                assert int((result.int() - expected.int()).abs().max()) <= levels[name], (name, size)
            elif name == "Solarize":
                assert ((picture[different].float() - 255 * size).abs() < 1e-4).all(), size
            else:
                assert not different.any(), (name, size)


def test_two_operations_follow_each_other() -> None:
    pictures = photographs(40, 32, 32)
    operations = every_operation(32, 32)
    first, second = np.random.default_rng(1).integers(0, len(operations), (2, 40))
    results = PictureOperations(operations).apply(pictures.clone(), first, second)
    for place, picture in enumerate(pictures):
        expected = alone(alone(picture, operations[first[place]]), operations[second[place]])
        assert torch.equal(results[place], expected), (operations[first[place]], operations[second[place]])


@pytest.mark.parametrize("name", POLICIES)
def test_each_sample_gets_a_pair_of_the_policy_with_its_probabilities_and_signs(name: str) -> None:
    policy = AutoAugment(name, 32, 32)
    random = CounterRandom.per_sample(0, 0, np.arange(100_000))
    first, second = policy.choose(random)
    expected = np.zeros((2, len(policy.operations.operations)))
    for pair in POLICIES[name]:
        for place, (operation, probability, step) in enumerate(pair):
            size = magnitude(operation, step, 32, 32)
            for signed in (size, -size) if operation in SIGNED else (size, size):
                number = policy.operations.operations.index((operation, signed))
                expected[place, number] += probability / 2 / len(POLICIES[name])
    expected[:, 0] = 1 - expected[:, 1:].sum(1)
    for place, chosen in enumerate((first, second)):
        share = np.bincount(chosen, minlength=expected.shape[1]) / len(chosen)
        assert np.abs(share - expected[place]).max() < 5 * np.sqrt(0.25 / len(chosen))
    together = {tuple(pair) for pair in np.stack([first, second], 1)[(first > 0) & (second > 0)].tolist()}
    allowed = {(first[0], second[0]) for first, second in POLICIES[name]}
    names = policy.operations.operations
    assert {(names[one][0], names[two][0]) for one, two in together} <= allowed


@pytest.mark.parametrize("name", POLICIES)
def test_a_batch_is_augmented_as_torchvision_would_each_of_its_samples(name: str) -> None:
    pictures, index = photographs(60, 32, 32), np.arange(60) * 7
    policy = AutoAugment(name, 32, 32)
    before = pictures.clone()
    random = CounterRandom.per_sample(3, 5, index)
    results = policy(pictures, random)
    assert torch.equal(pictures, before), "the input is changed"
    operations = policy.operations.operations
    for place, (first, second) in enumerate(zip(*policy.choose(random), strict=True)):
        expected = alone(alone(pictures[place], operations[first]), operations[second])
        assert torch.equal(results[place], expected)


@pytest.mark.gpu
def test_a_gpu_gives_the_same_pictures() -> None:
    pictures, operations = photographs(6, 32, 32), every_operation(32, 32)
    on_gpu = all_at_once(pictures.cuda(), operations).cpu()
    assert torch.equal(on_gpu, all_at_once(pictures, operations))
