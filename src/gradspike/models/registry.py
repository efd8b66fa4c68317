"""Which backbones there are, their options and the ranges of these; imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveInt

from gradspike.registry import Entry, Registry, Strict


class ModelConfig(Strict):
    """What every backbone takes. `activation: relu` makes the ANN twin: the same layers, plain batch norm, ReLU."""

    name: str
    activation: Literal["spike", "relu"] = "spike"

    def check_image_size(self, image_size: int) -> None:
        """Raises ValueError when images of this size, in pixels, do not survive the network's pooling."""


class SpikingCnnConfig(ModelConfig):
    """`depth` stages of conv3x3 - norm - neuron with `width` channels in the first, doubled by each further one."""

    width: PositiveInt = 32
    depth: PositiveInt = 3
    pool: Literal["avg", "max"] = "avg"

    def check_image_size(self, image_size: int) -> None:
        """Each stage but the first halves the image; at least one pixel must be left."""
        deepest = image_size.bit_length()
        if self.depth > deepest:
            raise ValueError(
                f"model.depth={self.depth} halves {image_size} x {image_size} images {self.depth - 1} times, which "
                f"leaves less than a pixel; at most model.depth={deepest}"
            )


MODELS: Registry[ModelConfig] = Registry(
    "model",
    {
        "spiking_cnn": Entry(SpikingCnnConfig, "gradspike.models.spiking_cnn:SpikingCnn"),
    },
)
