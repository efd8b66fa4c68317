"""QKFormer (Zhou et al., "QKFormer: hierarchical spiking transformer using Q-K attention", NeurIPS 2024)."""

from __future__ import annotations

from typing import ClassVar, Literal, NamedTuple

from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from gradspike.data.options.base import DatasetConfig
from gradspike.errors import ConfigError
from gradspike.models.attention import SelfAttention
from gradspike.models.blocks import fold_time, truncated_normal, unfold_time
from gradspike.models.feed_forward import FeedForward
from gradspike.models.options import LARGE, ModelConfig
from gradspike.models.spiking_embedding import SpikingEmbedding
from gradspike.models.token_attention import TokenAttention
from gradspike.spiking_norm import LayerContext

SCALE = 0.125
"""Factor of q k^T v, whatever the size of a head is."""


class QkFormerConfig(ModelConfig):
    """QKFormer. form: auto is events for event frames, imagenet from 96 pixels on, else cifar.

    depth: blocks of all stages. dim: channels of the last stage. heads: groups of channels in attention, of every
    stage. mlp_ratio: channels inside the feed-forward part, over those of the stage. null: as released.
    attention_state: as_released carries the potential of the last neuron of self-attention from sample to sample.
    """

    needs_space: ClassVar[bool] = True

    form: Literal["auto", "cifar", "imagenet", "events"] = "auto"
    dim: PositiveInt | None = None
    depth: PositiveInt | None = None
    heads: PositiveInt | None = None
    mlp_ratio: PositiveFloat | None = None
    attention_state: Literal["per_sample", "as_released"] = "per_sample"


class Form(NamedTuple):
    """A released form; `token_blocks` are the blocks with token attention of each stage before the last."""

    dim: int
    depth: int
    heads: int
    mlp_ratio: float
    token_blocks: tuple[int, ...]


FORMS = {
    "cifar": Form(384, 4, 8, 4.0, (1, 1)),
    "imagenet": Form(512, 10, 8, 4.0, (1, 2)),
    "events": Form(256, 2, 16, 1.0, (1,)),
}


class QkFormerBlock(nn.Module):
    """x + attention(x), then x + feed_forward(x): the stream holds counts of spikes."""

    def __init__(self, attention: nn.Module, channels: int, hidden: int, context: LayerContext) -> None:
        super().__init__()
        self.attention = attention
        self.feed_forward = FeedForward(channels, hidden, context)

    def forward(self, x: Tensor) -> Tensor:
        """[T*B, C, H, W] -> [T*B, C, H, W]."""
        x = x + self.attention(x)
        spikes: Tensor = self.feed_forward(x)
        return x + spikes


class QkFormer(nn.Module):
    """Stages of half the size and twice the channels: token attention, in the last one self-attention; then the mean
    over positions and one linear layer.
    """

    Config: ClassVar[type[QkFormerConfig]] = QkFormerConfig

    def __init__(self, config: QkFormerConfig, dataset: DatasetConfig, context: LayerContext) -> None:
        super().__init__()
        self.time_steps = context.time_steps
        name = form_of(config, dataset)
        form = FORMS[name]
        dim, depth, heads = config.dim or form.dim, config.depth or form.depth, config.heads or form.heads
        ratio = config.mlp_ratio or form.mlp_ratio
        widths = [dim >> stage for stage in reversed(range(len(form.token_blocks) + 1))]
        check_sizes(name, form, dim, depth, heads)
        carried = config.attention_state == "as_released" and context.activation == "spike"
        self.embeddings = nn.ModuleList()
        self.stages = nn.ModuleList()
        channels_in = dataset.channels
        for stage, width in enumerate(widths):
            self.embeddings.append(embedding(name, stage, channels_in, width, context))
            last = stage == len(form.token_blocks)
            blocks = nn.Sequential()
            for _ in range(depth - sum(form.token_blocks) if last else form.token_blocks[stage]):
                attention: nn.Module = (
                    SelfAttention(width, heads, False, SCALE, context, carried)
                    if last
                    else TokenAttention(width, heads, context)
                )
                blocks.append(QkFormerBlock(attention, width, round(width * ratio), context))
            self.stages.append(blocks)
            channels_in = width
        self.head = nn.Linear(dim, dataset.classes)
        truncated_normal(self.head)

    def forward(self, inputs: Tensor) -> Tensor:
        """Images [B, C, H, W] or frames [T, B, C, H, W] -> logits per step [T, B, K]."""
        x, static = fold_time(inputs)
        for embedding_, blocks in zip(self.embeddings, self.stages, strict=True):
            x = blocks(embedding_(x, static))
            static = False
        return unfold_time(self.head(x.mean((2, 3))), self.time_steps)


def form_of(config: QkFormerConfig, dataset: DatasetConfig) -> str:
    """The name of the form for these inputs."""
    if config.form != "auto":
        return config.form
    if dataset.kind == "frames":
        return "events"
    return "imagenet" if dataset.image_size >= LARGE else "cifar"


def check_sizes(name: str, form: Form, dim: int, depth: int, heads: int) -> None:
    """Raise ConfigError if channels cannot be shared out, or blocks are too few for the stages."""
    smallest = dim >> len(form.token_blocks)
    multiple = 16 if name == "events" else 8
    if dim % multiple:
        raise ConfigError(f"model.dim={dim}: must be a multiple of {multiple} in the form for {name}.")
    if smallest % heads:
        raise ConfigError(f"model.heads={heads}: must divide the {smallest} channels of the first stage.")
    if depth <= sum(form.token_blocks):
        fewest = sum(form.token_blocks) + 1
        raise ConfigError(f"model.depth={depth}: the form for {name} needs {fewest} blocks or more.")


def embedding(form: str, stage: int, channels_in: int, width: int, context: LayerContext) -> SpikingEmbedding:
    """The convolutions before a stage."""
    if stage:
        pools = (True, False) if form == "imagenet" else (False, True)
        return SpikingEmbedding(channels_in, [(width, pooled) for pooled in pools], 0, context)
    steps = {
        "cifar": [(width // 2, False), (width, False)],
        "imagenet": [(width // 2, True), (width, True), (width, False)],
        "events": [(width // 8, False), (width // 4, True), (width // 2, True), (width, True)],
    }[form]
    return SpikingEmbedding(channels_in, steps, 2 if form == "events" else 1, context)
