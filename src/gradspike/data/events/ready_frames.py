"""Frames that somebody else made: the .pt files of TET's release of CIFAR10-DVS (Deng et al., ICLR 2022).

A file holds [frames, label]: float32 [T, 2, H, W] or [2, H, W, T], of 0 to 1, and the label as a tensor of one number.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gradspike.data.events.frames import tet_resize
from gradspike.data.events.recording import BadRecordingError

if TYPE_CHECKING:
    from gradspike.data.events.clips import ClipFrames

READY = ".pt"


def read_ready_frames(data: bytes, wanted: ClipFrames) -> tuple[NDArray[Any], int]:
    """The frames [T, 2, image_size, image_size] and the label of a .pt file. Raises BadRecordingError.

    resize=tet treats them as the released code does. resize=events is possible for whole numbers (counts, or 0 and 1):
    each goes to the pixel that covers its place, as the events would have gone.
    """
    frames, label = _load(data)
    if len(frames) != wanted.time_steps:
        raise BadRecordingError(f"holds {len(frames)} frames: set time_steps={len(frames)}")
    values = np.nan_to_num(frames)  # a frame without events was divided by its largest value, 0
    if values.min() < 0:
        raise BadRecordingError("holds negative values, which are neither counts nor frames of 0 to 1")
    if wanted.resize == "tet":
        if values.max() > 1:
            raise BadRecordingError("holds values above 1; the released code takes frames of 0 to 1")
        return tet_resize(values, wanted.image_size), label
    if (values != np.rint(values)).any():
        raise BadRecordingError("holds frames whose values are not whole, so not events: set dataset.resize=tet")
    counts = _by_place(_by_place(values, wanted.image_size).swapaxes(2, 3), wanted.image_size).swapaxes(2, 3)
    if wanted.binning == "binary":
        counts = (counts > 0).astype(np.float64)
    return counts.astype(np.uint8 if counts.max() <= 255 else np.int16), label


def _load(data: bytes) -> tuple[NDArray[np.float32], int]:
    if not data:
        raise BadRecordingError("is empty (0 bytes)")
    import torch

    try:
        frames, label = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        array, number = np.asarray(frames, dtype=np.float32), float(torch.as_tensor(label).reshape(()))
    except Exception as error:  # zipfile, pickle, EOF and runtime errors, depending on where the file is damaged
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadRecordingError(f"cannot be read as [frames, label]: {reason}") from error
    if array.ndim == 4 and array.shape[0] == 2 and array.shape[1] == array.shape[2]:
        array = array.transpose(3, 0, 1, 2)
    if array.ndim != 4 or array.shape[1] != 2 or array.shape[2] != array.shape[3]:
        raise BadRecordingError(f"holds frames of shape {tuple(array.shape)} instead of [T, 2, H, H] or [2, H, H, T]")
    if number != int(number) or number < 0:
        raise BadRecordingError(f"holds the label {number}")
    return array, int(number)


def _by_place(values: NDArray[Any], size: int) -> NDArray[np.float64]:
    """Sums over the pixels of axis 2 that go to the same place of `size`."""
    length = values.shape[2]
    chosen = np.zeros((size, length))
    chosen[np.arange(length) * size // length, np.arange(length)] = 1
    sums: NDArray[np.float64] = np.einsum("pl,tclm->tcpm", chosen, values.astype(np.float64))
    return sums
