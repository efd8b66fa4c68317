"""Precomputed frames: the .pt files of TET's CIFAR10-DVS release (Deng et al., ICLR 2022).

A file holds [frames, label]: float32 [T, 2, H, W] or [2, H, W, T] in the range 0 to 1, and a one-element tensor.
"""

from __future__ import annotations

import io
import pickle
import warnings
import zipfile
import zlib
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gradspike.data.events.frames import narrow, tet_resize
from gradspike.data.events.recording import BadRecordingError
from gradspike.data.files.containers import refuse_bomb_inside
from gradspike.data.files.safe_pickle import calls, foreign_call
from gradspike.errors import first_line
from gradspike.shown import counted

READY = ".pt"


def read_ready_frames(
    data: bytes,
    time_steps: int,
    image_size: int,
    resize: Literal["events", "tet"],
    binning: Literal["count", "binary"],
) -> tuple[NDArray[Any], int]:
    """Read the frames [T, 2, image_size, image_size] and the label of a .pt file. Raises BadRecordingError.

    resize=tet resizes like the released code. resize=events requires integer counts (or 0 and 1) and adds each count to
    the pixel that covers its position, as if resizing the events themselves.
    """
    frames, label = _load(data)
    if len(frames) != time_steps:
        raise BadRecordingError(f"contains {counted(len(frames), 'frame')}: set time_steps={len(frames)}")
    empty = np.isnan(frames).all(axis=(1, 2, 3), keepdims=True)  # an empty frame was divided by its maximum, 0
    values = np.where(empty, np.float32(0), frames)
    if not np.isfinite(values).all():
        raise BadRecordingError(f"contains NaN or infinity in {counted(int((~np.isfinite(values)).sum()), 'value')}")
    if values.min() < 0:
        raise BadRecordingError("contains negative values; frames are counts, or values from 0 to 1")
    if resize == "tet":
        if values.max() > 1:
            raise BadRecordingError("contains values above 1; the released code expects frames with values from 0 to 1")
        return tet_resize(values, image_size), label
    if (values != np.rint(values)).any():
        raise BadRecordingError("contains fractional values instead of event counts: set dataset.resize=tet")
    counts = _by_place(_by_place(values, image_size).swapaxes(2, 3), image_size).swapaxes(2, 3)
    if binning == "binary":
        counts = (counts > 0).astype(np.float64)
    return narrow(counts), label


def _load(data: bytes) -> tuple[NDArray[np.float32], int]:
    if not data:
        raise BadRecordingError("is empty (0 bytes)")
    import torch

    refuse_bomb_inside(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about format versions that fail afterwards
            frames, label = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        array, number = np.asarray(frames, dtype=np.float32), float(torch.as_tensor(label).reshape(()))
    except Exception as error:  # a damaged file raises zipfile, pickle, EOF or runtime errors
        if code := foreign_call(_pickle_in(data), known=("torch", "collections", "numpy")):
            raise BadRecordingError(calls(code)) from error
        # torch's own message advises loading it anyway.
        advice = isinstance(error, pickle.UnpicklingError)
        reason = "it is not a tensor file" if advice else first_line(error)
        raise BadRecordingError(f"cannot be read as [frames, label]: {reason}") from error
    if array.ndim == 4 and array.shape[0] == 2 and array.shape[1] == array.shape[2]:
        array = array.transpose(3, 0, 1, 2)
    if array.ndim != 4 or array.shape[1] != 2 or array.shape[2] != array.shape[3]:
        raise BadRecordingError(
            f"contains frames of shape {tuple(array.shape)} instead of [T, 2, H, H] or [2, H, H, T]"
        )
    if not number.is_integer() or number < 0:
        raise BadRecordingError(f"has label {number}; labels are whole numbers from 0")
    return array, int(number)


def _pickle_in(data: bytes) -> bytes:
    """The pickle in a .pt file: a zip member in the current format, the whole file in the old one."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return next((archive.read(name) for name in archive.namelist() if name.endswith("data.pkl")), b"")
    except (OSError, RuntimeError, zipfile.BadZipFile, zlib.error):
        return data


def _by_place(values: NDArray[Any], size: int) -> NDArray[np.float64]:
    """Sum the pixels along axis 2 that map to the same one of `size` pixels."""
    length = values.shape[2]
    chosen = np.zeros((size, length))
    chosen[np.arange(length) * size // length, np.arange(length)] = 1
    sums: NDArray[np.float64] = np.einsum("pl,tclm->tcpm", chosen, values.astype(np.float64))
    return sums
