"""Spiking Speech Commands (Cramer, Stradmann, Schemmel & Zenke, TNNLS 2022): spoken words as spikes of 700 channels.

Reads ssc_train.h5, ssc_valid.h5 and ssc_test.h5, the official splits.
"""

from __future__ import annotations

from typing import ClassVar

from gradspike.data.options.base import DatasetConfig
from gradspike.data.options.spikes import SscConfig
from gradspike.data.spikes.source import SpikeTrains


class Ssc(SpikeTrains[SscConfig]):
    """Words of Google's Speech Commands v0.2, 35 classes."""

    Config: ClassVar[type[DatasetConfig]] = SscConfig
    what = "SSC"
    usual_names = ("SSC", "ssc", "SSC.zip", "ssc.zip")
    put = (
        "ssc_train.h5.zip, ssc_valid.h5.zip and ssc_test.h5.zip from https://zenkelab.org/datasets, in a folder SSC, "
        "packed or unpacked"
    )
    split_files: ClassVar = {"train": "ssc_train.h5", "val": "ssc_valid.h5", "test": "ssc_test.h5"}
