"""Spiking Heidelberg Digits (Cramer, Stradmann, Schemmel & Zenke, TNNLS 2022): spoken digits as spikes of 700 channels.

Reads shd_train.h5 and shd_test.h5. Validation samples are held out by speaker.
"""

from __future__ import annotations

from typing import ClassVar

from gradspike.data.options.base import DatasetConfig
from gradspike.data.options.spikes import ShdConfig
from gradspike.data.spikes.source import SpikeTrains


class Shd(SpikeTrains[ShdConfig]):
    """Spoken digits in German and English, 20 classes."""

    Config: ClassVar[type[DatasetConfig]] = ShdConfig
    what = "SHD"
    usual_names = ("SHD", "shd", "SHD.zip", "shd.zip")
    put = "shd_train.h5.zip and shd_test.h5.zip from https://zenkelab.org/datasets, in a folder SHD, packed or unpacked"
    split_files: ClassVar = {"train": "shd_train.h5", "test": "shd_test.h5"}
