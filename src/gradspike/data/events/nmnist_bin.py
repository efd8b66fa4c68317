"""The .bin files of N-MNIST and N-Caltech101 (Orchard et al., Front. Neurosci. 2015)."""

from __future__ import annotations

import numpy as np

from gradspike.data.events.recording import BadRecordingError, Recording
from gradspike.shown import counted


def read_bin(data: bytes) -> Recording:
    """Read 40-bit big-endian events: x (8 bits), y (8), polarity (1, set for ON), timestamp in microseconds (23).

    y = 240 marks a timestamp overflow of 2**13 microseconds instead of an event (the data set's Read_Ndataset.m).
    """
    if len(data) % 5:
        raise BadRecordingError(f"truncated: {counted(len(data) % 5, 'byte')} after the last complete event")
    columns = np.frombuffer(data, dtype=np.uint8).reshape(-1, 5)
    words = columns.astype(np.int64)
    t = (words[:, 2] & 127) << 16 | words[:, 3] << 8 | words[:, 4]
    overflow = columns[:, 1] == 240
    if overflow.any():
        t += np.cumsum(overflow) << 13
        columns, t = columns[~overflow], t[~overflow]
    x, y = columns[:, 0].astype(np.int16), columns[:, 1].astype(np.int16)
    return Recording(t, x, y, columns[:, 2] > 127, int(np.count_nonzero(overflow)))
