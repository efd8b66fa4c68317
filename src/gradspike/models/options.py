"""Options that several backbones share. Light: imports no torch."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import PositiveFloat

from gradspike.registry import Strict
from gradspike.touches import Touches


class ModelConfig(Strict):
    """What every backbone takes. `activation: relu` makes the ANN twin: the same layers, plain batch norm, ReLU."""

    touches: ClassVar[Touches] = Touches.RESULT

    name: str
    activation: Literal["spike", "relu"] = "spike"
    encoder: Literal["direct", "poisson", "latency"] = "direct"
    """How a still picture enters. direct: its values as a constant current; poisson: at each step a pixel spikes with
    its value as probability; latency: each pixel spikes once, the brighter the earlier. The spikes want values of 0 to
    1, that is dataset.normalize=unit. Frames of events enter as they are."""

    def check_image_size(self, image_size: int) -> None:
        """Raises ValueError when images of this size, in pixels, do not survive the network's pooling."""


class WidthConfig(ModelConfig):
    """A published network whose every layer has `width` times the published number of channels, at least one."""

    width: PositiveFloat = 1.0
    pool: Literal["avg", "max"] = "avg"


class ResidualConfig(WidthConfig):
    """Residual networks of spiking blocks (Fang et al., NeurIPS 2021), for images of any size.

    residual: how a block's spikes s and its shortcut x combine: add (s + x), and (s x), iand ((1 - s) x), or basic (as
    in ResNet: the currents are added before the block's last neuron).
    """

    residual: Literal["add", "and", "iand", "basic"] = "add"

    def check_image_size(self, image_size: int) -> None:
        """Any size will do: strides with padding leave a pixel of a pixel, and the last pooling is global."""
