"""Which backbones there are, their options and the ranges of these; imports no torch."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator

from gradspike.registry import Entry, Registry, Strict


class ModelConfig(Strict):
    """What every backbone takes. `activation: relu` makes the ANN twin: the same layers, plain batch norm, ReLU."""

    name: str
    activation: Literal["spike", "relu"] = "spike"
    encoder: Literal["direct", "poisson", "latency"] = "direct"
    """How a still picture enters. direct: its values as a constant current; poisson: at each step a pixel spikes with
    its value as probability; latency: each pixel spikes once, the brighter the earlier. The spikes want values of 0 to
    1, that is dataset.normalize=unit. Frames of events enter as they are."""

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


class WidthConfig(ModelConfig):
    """A published network whose every layer has `width` times the published number of channels, at least one."""

    width: PositiveFloat = 1.0
    pool: Literal["avg", "max"] = "avg"


class VggConfig(WidthConfig):
    """VGG networks: stages of convolutions, each followed by 2x2 pooling."""

    halvings: ClassVar[int]
    """Number of poolings."""

    def check_image_size(self, image_size: int) -> None:
        """Each pooling halves the image; at least one pixel must be left."""
        if image_size >> self.halvings == 0:
            raise ValueError(
                f"it halves {image_size} x {image_size} images {self.halvings} times, which leaves less than a pixel; "
                f"it takes images of {1 << self.halvings} pixels or more (dataset.image_size, where that can be chosen)"
            )


class VggSnnConfig(VggConfig):
    """VGGSNN (Deng et al., ICLR 2022)."""

    halvings = 4


class Vgg13Config(VggConfig):
    """VGG-13 (Simonyan & Zisserman, ICLR 2015) with one linear layer."""

    halvings = 5


class ResidualConfig(WidthConfig):
    """Residual networks of spiking blocks (Fang et al., NeurIPS 2021), for images of any size.

    residual: how a block's spikes s and its shortcut x combine: add (s + x), and (s x), iand ((1 - s) x), or basic (as
    in ResNet: the currents are added before the block's last neuron).
    """

    residual: Literal["add", "and", "iand", "basic"] = "add"

    def check_image_size(self, image_size: int) -> None:
        """Any size will do: strides with padding leave a pixel of a pixel, and the last pooling is global."""


class SewResNetConfig(ResidualConfig):
    """ResNet-18 and -34. stem: imagenet (7x7, stride 2, pooling) or small (3x3, stride 1); auto: small below 96
    pixels. pool: of the imagenet stem; the last pooling is an average."""

    pool: Literal["avg", "max"] = "max"
    stem: Literal["auto", "imagenet", "small"] = "auto"


TIMM_OPTIONS_SET_ELSEWHERE = {
    **dict.fromkeys(("pretrained", "checkpoint_path"), "weights are loaded with model.pretrained=<file>"),
    "num_classes": "it follows from the data set",
    "in_chans": "it follows from the data set",
}


class TimmConfig(ModelConfig):
    """Any convolutional network of timm as a spiking one; `name` is timm's name of it."""

    library: Literal["timm"] = "timm"
    pretrained: str | None = None
    """A local file (.pth, .pt, .safetensors) of weights in timm's names."""
    spiking_gates: bool = False
    """Make the activations inside squeeze-excite and other gates spike too; they stay real-valued otherwise."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of timm.create_model, such as drop_path_rate; which there are depends on the network."""

    @field_validator("options")
    @classmethod
    def _set_elsewhere(cls, options: dict[str, Any]) -> dict[str, Any]:
        for key in options:
            if key in TIMM_OPTIONS_SET_ELSEWHERE:
                raise ValueError(f"{key} is not set here; {TIMM_OPTIONS_SET_ELSEWHERE[key]}")
        return options


MODELS: Registry[ModelConfig] = Registry(
    "model",
    {
        "spiking_cnn": Entry(SpikingCnnConfig, "gradspike.models.spiking_cnn:SpikingCnn"),
        "resnet19": Entry(ResidualConfig, "gradspike.models.resnet19:ResNet19"),
        "sew_resnet18": Entry(SewResNetConfig, "gradspike.models.sew_resnet:SewResNet18"),
        "sew_resnet34": Entry(SewResNetConfig, "gradspike.models.sew_resnet:SewResNet34"),
        "vggsnn": Entry(VggSnnConfig, "gradspike.models.vgg:VggSnn"),
        "vgg13": Entry(Vgg13Config, "gradspike.models.vgg:Vgg13"),
        "timm": Entry(TimmConfig, "gradspike.models.timm.network:TimmNetwork"),
    },
)
