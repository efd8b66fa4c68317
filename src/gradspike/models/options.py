"""Options that several backbones share. Light: imports no torch."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from gradspike.registry import Strict
from gradspike.touches import Touches

LARGE = 96
"""Smallest image size, in pixels, for which `stem: auto` is the ImageNet stem."""

Depths = tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt]
"""Blocks in each of four stages."""


class ModelConfig(Strict):
    """Options of every backbone. `activation: relu` makes the ANN twin: the same layers, plain batch norm, ReLU."""

    touches: ClassVar[Touches] = Touches.RESULT
    needs_space: ClassVar[bool] = False
    """Whether the network needs inputs with rows and columns, as convolutions do."""
    feeds_back: ClassVar[bool] = False
    """Whether spikes of one time step reach the layer that emitted them at the next."""

    name: str
    activation: Literal["spike", "relu"] = "spike"
    encoder: Literal["direct", "poisson", "latency"] = "direct"
    """How a still image enters. direct: its values are a constant current; poisson: at each step a pixel spikes with
    its value as probability; latency: each pixel spikes once, brighter ones earlier. poisson and latency need values of
    0 to 1 (dataset.normalize=unit). Event frames enter unchanged."""

    moderate_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Rate of moderate dropout (LTMD; Wang, Cheng, Lim, NeurIPS 2022) before the last linear layer, in training.
    0 turns it off."""

    readout: Literal["current", "ltmd"] = "current"
    """The logits. current: those of the last layer; ltmd: the output neuron of LTMD behind it, which passes on
    potentials above a threshold."""

    def check_image_size(self, image_size: int) -> None:
        """Raise ValueError if images of this size, in pixels, are too small for the network's pooling."""


class WidthConfig(ModelConfig):
    """A published network. Every layer has `width` times the published number of channels, at least one."""

    needs_space: ClassVar[bool] = True

    width: PositiveFloat = 1.0
    pool: Literal["avg", "max"] = "avg"


class ResidualConfig(WidthConfig):
    """Residual networks of spiking blocks (Fang et al., NeurIPS 2021), for images of any size.

    residual: combines a block's spikes s and its shortcut x: add (s + x), and (s x), iand ((1 - s) x), or basic (as in
    ResNet: currents are added before the block's last neuron).
    """

    residual: Literal["add", "and", "iand", "basic"] = "add"


STEM_PARTS = (8, 4, 2, 1)
"""The four convolutions before a transformer's blocks have so many times fewer channels than these."""


class TransformerConfig(ModelConfig):
    """Spiking transformers with four convolutions before the blocks.

    dim: channels of the blocks. depth: number of blocks. heads: attention is computed in so many groups of channels.
    mlp_ratio: channels inside the feed-forward part, over dim. pools: how many of the four convolutions, the last ones,
    are followed by pooling that halves the size; null: as released, two for still images below 96 pixels, else four.
    """

    needs_space: ClassVar[bool] = True

    dim: PositiveInt = 384
    depth: PositiveInt = 4
    heads: PositiveInt = 12
    mlp_ratio: PositiveFloat = 4.0
    pools: Annotated[int, Field(ge=0, le=4)] | None = None

    @model_validator(mode="after")
    def _channels_can_be_shared_out(self) -> Self:
        if self.dim % 8:
            raise ValueError(
                f"dim={self.dim}: must be a multiple of 8, because the first convolution has dim / 8 channels"
            )
        if self.dim % self.heads:
            raise ValueError(f"heads={self.heads}: must divide dim={self.dim}")
        return self

    def is_small(self, kind: str, image_size: int) -> bool:
        """Whether the inputs are those of the released form for CIFAR: still images below 96 pixels."""
        return kind == "image" and image_size < LARGE

    def poolings(self, kind: str, image_size: int) -> int:
        """`pools` for these inputs."""
        if self.pools is not None:
            return self.pools
        return 2 if self.is_small(kind, image_size) else 4
