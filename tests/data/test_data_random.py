"""Counter-based random numbers and the augmentation that uses them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from gradspike.data.augment.batch import BatchTransform, augment, shift
from gradspike.data.augment.counter_random import GAMMA, CounterRandom, mix64, mix_integers
from gradspike.data.options.base import AugmentConfig
from gradspike.data.options.events import DigitsEventsConfig
from gradspike.data.options.pictures import DigitsConfig, ImageAugmentConfig

BOTH = AugmentConfig(shift=2, flip=True)


def pictures(count: int, *shape: int) -> Tensor:
    return torch.randint(1, 256, (count, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_mix64_is_splitmix64() -> None:
    """The first outputs of the published generator from state 0."""
    states = torch.tensor([GAMMA, GAMMA * 2 + 2**64, GAMMA * 3 + 2**64])
    expected = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert [value % 2**64 for value in mix64(states).tolist()] == expected
    assert [value % 2**64 for value in mix64(states.numpy()).tolist()] == expected
    assert mix_integers(0) % 2**64 == expected[0]


def test_numpy_and_torch_give_the_same_numbers() -> None:
    index = torch.arange(-5, 2000)
    by_torch = CounterRandom.per_sample(3, 7, index)
    by_numpy = CounterRandom.per_sample(3, 7, index.numpy())
    for draw in (0, 1, 99):
        assert (by_torch.bits(draw).numpy() == by_numpy.bits(draw)).all()
        assert by_torch.uniform(draw).dtype == torch.float32
        assert (by_torch.uniform(draw).double().numpy() == by_numpy.uniform(draw)).all()
        assert (by_torch.integers(draw, -4, 9).numpy() == by_numpy.integers(draw, -4, 9)).all()


@pytest.mark.gpu
def test_a_gpu_gives_the_same_numbers_and_the_same_augmentation() -> None:
    index = torch.arange(1000)
    on_cpu, on_gpu = (CounterRandom.per_sample(3, 7, index.to(device)) for device in ("cpu", "cuda"))
    assert torch.equal(on_cpu.bits(5), on_gpu.bits(5).cpu())
    assert torch.equal(on_cpu.uniform(5), on_gpu.uniform(5).cpu())
    inputs = pictures(1000, 3, 9, 9)
    assert torch.equal(augment(inputs, index, BOTH, 1, 2), augment(inputs.cuda(), index.cuda(), BOTH, 1, 2).cpu())


def test_numbers_are_uniform_and_independent_over_every_coordinate() -> None:
    """Samples, draws, epochs and seeds: each column is uniform, and no two are correlated."""
    index = torch.arange(20_000)
    columns = [
        CounterRandom.per_sample(seed, epoch, index).uniform(draw)
        for seed in (0, 1)
        for epoch in (0, 1)
        for draw in (0, 1)
    ]
    table = torch.stack(columns).double()
    assert table.min() >= 0
    assert table.max() < 1
    for column in table:
        tenths = torch.bincount((column * 10).long(), minlength=10).double()
        assert ((tenths - 2000) ** 2 / 2000).sum() < 35, "chi-squared with 9 degrees of freedom, p < 0.0001"
    correlation = torch.corrcoef(table) - torch.eye(8)
    assert correlation.abs().max() < 5 / np.sqrt(20_000)
    neighbours = torch.corrcoef(torch.stack([table[0, 1:], table[0, :-1]]))[0, 1]
    assert abs(neighbours) < 5 / np.sqrt(20_000)


def test_integers_cover_their_range_evenly() -> None:
    values = CounterRandom.per_sample(0, 0, torch.arange(50_000)).integers(0, -2, 2)
    counts = torch.bincount(values + 2)
    assert len(counts) == 5
    assert (counts - 10_000).abs().max() < 500


def test_shift_moves_the_picture_and_fills_with_zeros() -> None:
    inputs = pictures(25, 2, 6, 7)
    rows, columns = (grid.flatten() for grid in torch.meshgrid(torch.arange(-2, 3), torch.arange(-2, 3), indexing="ij"))
    moved = shift(inputs, rows, columns, 2)
    for b in range(25):
        dy, dx = int(rows[b]), int(columns[b])
        expected = torch.zeros_like(inputs[b])
        for y in range(6):
            for x in range(7):
                if 0 <= y - dy < 6 and 0 <= x - dx < 7:
                    expected[:, y, x] = inputs[b, :, y - dy, x - dx]
        assert torch.equal(moved[b], expected)


def test_augmentation_belongs_to_the_sample_and_not_to_the_batch() -> None:
    inputs, index = pictures(40, 1, 8, 8), torch.arange(40) * 3
    whole = augment(inputs, index, BOTH, seed=1, epoch=2)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    for part in torch.split(order, 7):
        assert torch.equal(augment(inputs[part], index[part], BOTH, seed=1, epoch=2), whole[part])


def test_augmentation_changes_with_epoch_seed_and_sample() -> None:
    same = pictures(1, 1, 8, 8).repeat(64, 1, 1, 1)
    index = torch.arange(64)
    first = augment(same, index, BOTH, seed=1, epoch=0)
    for seed, epoch in ((1, 1), (2, 0)):
        changed = (augment(same, index, BOTH, seed, epoch) != first).flatten(1).any(1)
        assert changed.double().mean() > 0.8
    assert len(torch.unique(first.flatten(1), dim=0)) > 25, "of 25 shifts times two mirror images"


def test_all_frames_of_a_sample_move_alike() -> None:
    still = pictures(30, 1, 2, 9, 9).expand(-1, 5, -1, -1, -1)
    moved = augment(still, torch.arange(30), BOTH, seed=0, epoch=0)
    assert torch.equal(moved, moved[:, :1].expand(-1, 5, -1, -1, -1))
    assert not torch.equal(moved, still)


def test_flip_mirrors_about_half_of_the_samples() -> None:
    inputs = pictures(400, 1, 4, 4)
    flipped = augment(inputs, torch.arange(400), AugmentConfig(flip=True), seed=0, epoch=0)
    mirrored = (flipped == inputs.flip(-1)).flatten(1).all(1)
    assert torch.equal(flipped[~mirrored], inputs[~mirrored])
    assert 150 < int(mirrored.sum()) < 250


def test_no_augmentation_in_evaluation() -> None:
    transform = BatchTransform(DigitsConfig(normalize="unit", augment=ImageAugmentConfig(shift=2, flip=True)), seed=0)
    inputs = pictures(20, 1, 8, 8)
    assert torch.equal(transform(inputs, torch.arange(20), None), inputs.float() / 255)
    assert not torch.equal(transform(inputs, torch.arange(20), 0), inputs.float() / 255)


def test_images_are_normalised_by_mean_and_standard_deviation() -> None:
    inputs = pictures(20, 1, 8, 8)
    values = inputs.double() / 255
    transform = BatchTransform(DigitsConfig(), 0, (float(values.mean()),), (float(values.std(correction=0)),))
    output = transform(inputs, torch.arange(20), None)
    assert output.dtype == torch.float32
    assert abs(float(output.mean())) < 1e-5
    assert abs(float(output.std(correction=0)) - 1) < 1e-5
    torch.testing.assert_close(
        output.double(), (values - values.mean()) / values.std(correction=0), atol=1e-5, rtol=1e-5
    )


def test_frames_become_time_first_counts() -> None:
    inputs = pictures(6, 3, 2, 5, 5)
    for scale in (1.0, 4.0):
        output = BatchTransform(DigitsEventsConfig(count_scale=scale), 0)(inputs, torch.arange(6), None)
        assert output.shape == (3, 6, 2, 5, 5)
        assert output.is_contiguous()
        assert torch.equal(output, inputs.transpose(0, 1).float() / scale)
