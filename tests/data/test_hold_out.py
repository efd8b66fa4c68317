"""The validation split: stratified, fixed, and by groups where samples belong together."""

from __future__ import annotations

import numpy as np

from gradspike.data.source import hold_out


def test_hold_out_is_stratified_fixed_and_leaves_the_rest() -> None:
    labels = np.repeat(np.arange(4), 100)
    splits = np.where(np.arange(400) % 10 == 0, 2, 0).astype(np.uint8)
    held = hold_out(labels, splits, 0.1, 7)
    assert (held[splits == 2] == 2).all()
    assert [int(((held == 1) & (labels == label)).sum()) for label in range(4)] == [9] * 4
    assert (hold_out(labels, splits, 0.1, 7) == held).all()
    assert (hold_out(labels, splits, 0.1, 8) != held).any()
    assert (hold_out(labels, splits, 0.0, 7) == splits).all()
    assert not splits[splits == 1].size, "the argument was changed"


def test_hold_out_never_takes_all_nor_none() -> None:
    labels = np.array([0, 1, 1, 2, 2, 2])
    held = hold_out(labels, np.zeros(6, np.uint8), 0.01, 0)
    assert [int((held[labels == label] == 1).sum()) for label in range(3)] == [0, 1, 1]
    held = hold_out(labels, np.zeros(6, np.uint8), 0.99, 0)
    assert [int((held[labels == label] == 0).sum()) for label in range(3)] == [1, 1, 1]


def test_hold_out_keeps_groups_together_or_takes_the_end_of_a_single_one() -> None:
    labels = np.repeat([0, 1], 40)
    groups = np.concatenate([np.arange(40) // 4, np.full(40, 10)])
    held = hold_out(labels, np.zeros(80, np.uint8), 0.2, 3, groups)
    for group in range(10):
        assert len(set(held[groups == group].tolist())) == 1
    assert (held[:40] == 1).sum() == 8
    assert held[40:].tolist() == [0] * 32 + [1] * 8


def test_hold_out_of_people_holds_for_all_classes() -> None:
    """A subject without samples of one class is not in training for some classes and in validation for others."""
    groups = np.repeat(np.arange(20), 3)
    labels = np.tile([0, 1, 2], 20)
    present = (groups % 3 != 0) | (labels != 2)
    held = hold_out(labels[present], np.zeros(present.sum(), np.uint8), 0.25, 3, groups[present])
    of_person = [set(held[groups[present] == person].tolist()) for person in range(20)]
    assert sorted(map(len, of_person)) == [1] * 20
    assert of_person.count({1}) == 5
