"""Mixup and CutMix: their effect on pixels and labels, and that only the position of a batch determines them."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor

from gradspike.config.compose import load_config
from gradspike.config.schema import LossConfig
from gradspike.training.mixing import Mixing, build_mixing
from gradspike.training.module import SpikingClassifier

CLASSES = 6


def mixing(seed: int = 3, **options: float) -> Mixing:
    built = build_mixing(LossConfig(name="ce", **options), CLASSES, seed)  # type: ignore[arg-type]
    assert built is not None
    return built


def batch(size: int, steps: int | None = None) -> tuple[Tensor, Tensor]:
    """Samples of which every value is different, and labels of which partners differ."""
    shape = (size, 2, 6, 5) if steps is None else (steps, size, 2, 6, 5)
    inputs = torch.rand(shape, generator=torch.Generator().manual_seed(size))
    return inputs, torch.arange(size) % CLASSES


def own_share(shares: Tensor, labels: Tensor) -> float:
    """Share of the first sample's own class, the same for all pairs."""
    return float(shares[0, labels[0]])


def test_nothing_is_built_where_nothing_is_mixed() -> None:
    assert build_mixing(LossConfig(name="ce"), CLASSES, 0) is None


def test_from_an_epoch_on_nothing_is_mixed() -> None:
    mix = mixing(mixup=1.0, mixing_off_epoch=2)
    inputs, labels = batch(4)
    for epoch, on in ((1, True), (2, False), (3, False)):
        mixed, targets = mix(inputs.clone(), labels, epoch, 0)
        assert torch.equal(mixed, inputs) is not on
        assert torch.equal(targets, torch.nn.functional.one_hot(labels, CLASSES).float()) is not on
    unlimited = mixing(mixup=1.0)(inputs.clone(), labels, 1, 0)
    assert all(map(torch.equal, mix(inputs.clone(), labels, 1, 0), unlimited))
    with pytest.raises(ValueError, match="mixing_off_epoch needs mixup or cutmix above 0"):
        LossConfig(name="ce", mixing_off_epoch=2)


@pytest.mark.parametrize("options", [{"mixup": 2.0}, {"cutmix": 1.0}], ids=["mixup", "cutmix"])
@pytest.mark.parametrize("size", [8, 7])
def test_pixels_and_labels_are_mixed_in_the_same_proportion(options: dict[str, float], size: int) -> None:
    inputs, labels = batch(size)
    mixed, shares = mixing(**options)(inputs.clone(), labels, 0, 1)
    own = own_share(shares, labels)
    assert 0.02 < own < 0.98
    paired = size - size % 2
    partner = torch.cat([torch.arange(paired).flip(0), torch.arange(paired, size)])
    one_hot = torch.eye(CLASSES)[labels]
    torch.testing.assert_close(shares, own * one_hot + (1 - own) * one_hot[partner])
    if "mixup" in options:
        torch.testing.assert_close(mixed, own * inputs + (1 - own) * inputs[partner])
    else:
        cut = (mixed == inputs[partner]) & (mixed != inputs)
        assert bool(((mixed == inputs) | cut).all())
        assert 1 - float(cut[:paired].float().mean()) == pytest.approx(own)
        rows, columns = cut[0, 0].any(1).nonzero().flatten(), cut[0, 0].any(0).nonzero().flatten()
        assert int(cut[0, 0].sum()) == len(rows) * len(columns), "not one rectangle"
    if size % 2:
        assert torch.equal(mixed[-1], inputs[-1])


@pytest.mark.parametrize("options", [{"mixup": 1.0}, {"cutmix": 1.0}], ids=["mixup", "cutmix"])
@pytest.mark.parametrize("size", [4, 5])
def test_frames_are_mixed_alike_at_every_step(options: dict[str, float], size: int) -> None:
    frames, labels = batch(size, steps=3)
    mixed, shares = mixing(**options)(frames.clone(), labels, 2, 5)
    assert mixed.shape == frames.shape
    for t in range(3):
        step, step_shares = mixing(**options)(frames[t].clone(), labels, 2, 5)
        assert torch.equal(mixed[t], step)
        assert torch.equal(shares, step_shares)


def test_frames_that_lie_sample_by_sample_in_memory_are_the_same_frames() -> None:
    frames, labels = batch(4, steps=3)
    laid_out = frames.transpose(0, 1).contiguous().transpose(0, 1)
    first, _ = mixing(mixup=1.0)(frames.clone(), labels, 0, 0)
    second, _ = mixing(mixup=1.0)(laid_out, labels, 0, 0)
    assert torch.equal(first, second)


def test_a_batch_of_one_is_left_alone() -> None:
    inputs, labels = batch(1)
    mixed, shares = mixing(mixup=1.0)(inputs.clone(), labels, 0, 0)
    assert torch.equal(mixed, inputs)
    assert torch.equal(shares, torch.eye(CLASSES)[labels])


def test_only_the_place_of_a_batch_decides() -> None:
    inputs, labels = batch(8)

    def share(seed: int, *place: int) -> float:
        return own_share(mixing(seed=seed, mixup=1.0)(inputs.clone(), labels, *place)[1], labels)

    np.random.seed(1)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # type: ignore[index,union-attr]  # noqa: NPY002
    first = share(3, 4, 5)
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # type: ignore[index]  # noqa: NPY002
    np.random.seed(2)  # noqa: NPY002
    assert share(3, 4, 5) == first
    others = {share(2, 4, 5), share(3, 5, 5), share(3, 4, 6), share(3, 5, 4)}
    assert len(others | {first}) == 5


def test_the_share_of_mixed_batches_and_of_each_kind() -> None:
    inputs, labels = batch(8)
    mix = mixing(mixup=1.0, cutmix=1.0, mix_probability=0.5)
    kinds = []
    for batch_idx in range(400):
        mixed, shares = mix(inputs.clone(), labels, 0, batch_idx)
        if own_share(shares, labels) == 1:
            assert torch.equal(mixed, inputs)
            kinds.append("none")
        else:
            kinds.append("cutmix" if bool((mixed[0] == inputs[0]).any()) else "mixup")
    # Four standard deviations of a binomial of 400. A CutMix whose rectangle has no area counts as none.
    assert kinds.count("none") == pytest.approx(200, abs=40)
    assert kinds.count("mixup") == pytest.approx(100, abs=35)


def test_a_training_step_learns_the_shares_and_counts_the_larger_one() -> None:
    config = load_config(["model.width=4", "model.depth=2", "loss=tet", "loss.mixup=1", "seed=5", "engine=eager"])
    torch.manual_seed(0)
    module = SpikingClassifier(config).train()
    inputs = torch.rand(32, 1, 8, 8)
    labels = torch.arange(32) % 10
    mix = build_mixing(config.loss, 10, config.seed)
    assert mix is not None
    mixed, shares = mix(inputs.clone(), labels, 0, 4)
    logits = copy.deepcopy(module.model)(mixed)
    loss = module.training_step({"input": inputs.clone(), "label": labels, "index": torch.arange(32)}, 4)
    torch.testing.assert_close(loss, module.criterion(logits, shares))
    right = (logits.mean(0).argmax(1) == shares.argmax(1)).float().mean()
    assert module.train_meter.running()[1] == pytest.approx(float(right))
