"""Images, frames and events as they come, turned into stored samples as a data set prepares them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from gradspike.data.events.arrays import recording_in
from gradspike.data.events.recording import Recording
from gradspike.data.events.recordings import read_recording
from gradspike.data.events.source import EventSource
from gradspike.data.options.base import DatasetConfig
from gradspike.data.pictures.decode import decode, fit, rgb
from gradspike.data.source import Source
from gradspike.errors import UserError, unknown_path
from gradspike.shown import expanded


@dataclass(frozen=True)
class Prediction:
    """What a network says about B samples.

    Attributes:
        labels: the predicted classes, int64 [B].
        names: their names.
        probabilities: softmax of the logits' mean over time, [B, K].
        logits: of each time step, [T, B, K].
    """

    labels: Tensor
    names: tuple[str, ...]
    probabilities: Tensor
    logits: Tensor


def stored_samples(given: Any, source: Source[Any], span_us: tuple[int, int] | None = None) -> Tensor:
    """Samples as the data set stores them: images uint8 [B, C, S, S], or frames [B, T, 2, S, S], uint8 or int16.

    given: one sample or a list of them. For images: a path, PIL's image, or uint8 [C, S, S], [B, C, S, S]. For frames:
    counts [T, 2, S, S] or [B, T, 2, S, S]. For events: a path, a Recording, or an array with the fields t (in
    microseconds), x, y and p. span_us: start and end of the sample of events.
    Raises UserError that says what does not fit.
    """
    if isinstance(given, list | tuple):
        if not given:
            raise UserError("There are no samples to predict.")
        return torch.cat([stored_samples(one, source, span_us) for one in given])
    config = source.config
    structured = isinstance(given, np.ndarray) and given.dtype.names is not None
    if span_us is not None and (
        config.kind == "image" or not (structured or isinstance(given, Recording | str | Path))
    ):
        raise UserError("span_us: is for events; these are not.")
    if config.kind == "image" and (structured or isinstance(given, Recording)):
        raise UserError("The network takes images, not events.")
    if config.kind == "frames" and isinstance(given, Image.Image):
        raise UserError("The network takes events or their frames, not images.")
    if isinstance(given, np.ndarray | Tensor) and not structured:
        whole = given if isinstance(given, Tensor) else torch.from_numpy(np.array(given))
        return _whole(whole, config, source.time_steps)
    try:
        if config.kind == "frames":
            made = source.frames(recording_in(given) if structured else _read_events(given, source), span_us)
        else:
            made = _picture(given, config)
    except ValueError as error:
        raise UserError(f"{given if isinstance(given, str | Path) else 'the sample'}: {error}.") from error
    return torch.from_numpy(made).unsqueeze(0)


def _whole(array: Tensor, config: DatasetConfig, time_steps: int) -> Tensor:
    """An array that has the network's shape already, with a batch axis."""
    size = (config.channels, config.image_size, config.image_size)
    shape, names = (size, "C, H, W") if config.kind == "image" else ((time_steps, *size), "T, C, H, W")
    allowed = (torch.uint8,) if config.kind == "image" else (torch.uint8, torch.int16)
    if array.dtype not in allowed:
        kinds = " or ".join(str(kind).removeprefix("torch.") for kind in allowed)
        raise UserError(f"The array has the type {str(array.dtype).removeprefix('torch.')}; expected {kinds}.")
    if tuple(array.shape[-len(shape) :]) != shape or array.ndim - len(shape) not in (0, 1):
        hint = " Give a path or PIL's image to have it scaled." if config.kind == "image" else ""
        raise UserError(
            f"The array has the shape {list(array.shape)}; expected [{names}] = {list(shape)}, with or without a batch "
            f"before it.{hint}"
        )
    if array.dtype == torch.int16 and (array < 0).any():
        raise UserError("The array has negative values; frames are counts of events.")
    return array if array.ndim > len(shape) else array.unsqueeze(0)


def _picture(given: Any, config: DatasetConfig) -> NDArray[np.uint8]:
    """uint8 [C, S, S] of a path or PIL's image, as in evaluation."""
    picture = rgb(given) if isinstance(given, Image.Image) else decode(_content(given))
    shorter_side: int | None = getattr(config, "eval_shorter_side", None) if config.compressed else None
    if shorter_side is not None:
        from gradspike.data.pictures.encoded import middle

        whole = torch.from_numpy(np.array(picture).transpose(2, 0, 1))
        return middle(whole, shorter_side, config.image_size).numpy()
    if config.channels == 1:
        return np.array(fit(picture.convert("L"), config.image_size))[None]
    return np.array(fit(picture, config.image_size)).transpose(2, 0, 1)


def _read_events(given: Any, source: Source[Any]) -> Recording:
    if isinstance(given, Recording):
        return given
    reader = source.reader() if isinstance(source, EventSource) else read_recording
    return reader(str(given), _content(given))


def _content(path: Any) -> bytes:
    """The bytes of a file. Raises UserError for what is no path, or no file."""
    if not isinstance(path, str | Path):
        raise UserError(f"{type(path).__name__}: is neither a path, an array nor an image. See docs/library.md.")
    file = expanded(path)
    if file.is_dir():
        raise UserError(f"'{path}' is a folder, not a file.")
    if not file.is_file():
        raise UserError(unknown_path("file", file))
    return file.read_bytes()
