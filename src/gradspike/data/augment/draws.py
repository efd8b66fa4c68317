"""The numbers of the random decisions for a sample."""

from __future__ import annotations

from enum import IntEnum


class Draw(IntEnum):
    """The number of each decision. New decisions take new numbers, so existing ones keep their values."""

    ORDER = 0
    SHIFT_Y = 1
    SHIFT_X = 2
    FLIP = 3
    CUTOUT_Y = 4
    CUTOUT_X = 5
    ROLL_Y = 6
    ROLL_X = 7
    POLICY = 8
    FIRST_APPLIED = 9
    FIRST_SIGN = 10
    SECOND_APPLIED = 11
    SECOND_SIGN = 12
    NDA_CHOICE = 13
    NDA_Y = 14
    NDA_X = 15
    NDA_ANGLE = 16
    CROP = 32
    """The first of 40 numbers: four per attempt at a random resized crop."""
    RAND_AUGMENT = 96
    """The first of 64 numbers: eight per operation of RandAugment."""
    JITTER_ORDER = 160
    JITTER_BRIGHTNESS = 161
    JITTER_CONTRAST = 162
    JITTER_SATURATION = 163
    ERASE = 176
    """Whether to erase; the 40 numbers after it: four per attempt at a rectangle."""
    ERASE_NOISE = 217
