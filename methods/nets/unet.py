"""A U-Net for images of 8 x 8 to 64 x 64: residual blocks modulated by the embedding.

Shape suffixes: B rows, C channels, H height, W width, E embedding.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from ..core.condition import Condition
from ..core.dropout import Dropout
from ..core.flow_map import Domain, FlowMap
from .affine import Conv2d
from .attention import heads_of
from .condition_embedding import TokenEmbedding, check_condition
from .embedding import Embedding
from .image import image_shape
from .norm import GroupNorm
from .unet_block import (
    Context,
    Downsample,
    ImageAttention,
    ResidualBlock,
    Stage,
    Upsample,
)


@dataclass(frozen=True, kw_only=True)
class _StageMaker:
    """What all stages of one network have in common."""

    embedding_width: int
    context_width: int
    head_width: int
    dropout: float
    ordinals: Iterator[int] = field(default_factory=count)

    def __call__(self, channels_in: int, channels: int, *, has_attention: bool) -> Stage:
        block = ResidualBlock(
            channels_in,
            channels,
            embedding_width=self.embedding_width,
            dropout=Dropout(self.dropout, ordinal=next(self.ordinals)),
        )
        if not has_attention:
            return Stage(block, None)
        heads = heads_of(channels, self.head_width)
        return Stage(block, ImageAttention(channels, heads=heads, context_width=self.context_width))


@final
class UNet(FlowMap):
    """A U-Net of (x, s, t - s, condition).

    Reference: layout after Song et al. 2021, arXiv:2011.13456v2, DDPM++.

    Args:
        shape: Shape of a datum: channels, height, width.
        domain: The (s, t) on which the map is trained.
        classes: Classes of the labels, 0 for an unconditional network.
        vocabulary: Number of tokens, 0 for none; tokens are seen wherever there is attention.
        guided: Whether the guidance scale is an input.
        width: Channels of the first level, a multiple of 4.
        multipliers: Channels of each level, as multiples of the width; each level halves the side
            of the one before it.
        blocks: Residual blocks of a level on the way down; there is one more on the way up.
        attention_levels: Levels with attention behind each block; the middle always has one.
        head_width: Channels of an attention head.
        embedding_width: Width of the embedding of times and condition, even.
        dropout: Share of the activations that each block drops in training, in [0, 1).
        max_cycles: Periods of the fastest time feature over the unit interval.

    Raises:
        ValueError: If the images have a shape that the network cannot take, or a size is wrong.
    """

    def __init__(
        self,
        *,
        shape: tuple[int, ...],
        domain: Domain,
        classes: int = 0,
        vocabulary: int = 0,
        guided: bool = False,
        width: int = 32,
        multipliers: Sequence[int] = (1, 2),
        blocks: int = 1,
        attention_levels: Sequence[int] = (),
        head_width: int = 32,
        embedding_width: int = 128,
        dropout: float = 0.0,
        max_cycles: float = 4.0,
    ) -> None:
        super().__init__(domain=domain)
        _check_sizes(width, multipliers, blocks, attention_levels, embedding_width)
        image_channels, _, _ = image_shape(shape, net="UNet", multiple=2 ** (len(multipliers) - 1))
        self.classes, self.vocabulary, self.guided = classes, vocabulary, guided
        self.embedding = Embedding(
            embedding_width, classes=classes, guided=guided, max_cycles=max_cycles
        )
        self.tokens = TokenEmbedding(vocabulary, embedding_width) if vocabulary else None
        widths = [width * multiplier for multiplier in multipliers]
        self.stem = Conv2d(image_channels, widths[0], 3, padding=1)
        maker = _StageMaker(
            embedding_width=embedding_width,
            context_width=embedding_width if vocabulary else 0,
            head_width=head_width,
            dropout=dropout,
        )
        self.down, self.middle, self.up = _layers(widths, blocks, attention_levels, maker)
        self.norm = GroupNorm(widths[0])
        self.head = Conv2d(widths[0], image_channels, 3, padding=1)
        nn.init.zeros_(self.head.weight)
        assert self.head.bias is not None, "a convolution has a bias by default"
        nn.init.zeros_(self.head.bias)

    def forward(
        self,
        x: Float[Tensor, " b *d"],
        s: Float[Tensor, " b"],
        t: Float[Tensor, " b"],
        condition: Condition | None = None,
    ) -> Float[Tensor, " b *d"]:
        """Average velocity over [s, t] of the trajectory that is at x at time s."""
        check_condition(
            condition, classes=self.classes, vocabulary=self.vocabulary, guided=self.guided
        )
        tokens = None if self.tokens is None else self.tokens(condition, len(x))
        context = Context(self.embedding(s, t - s, condition), tokens)
        y_BCHW = self.stem(x)
        skips = [y_BCHW]
        for layer in self.down:
            y_BCHW = layer(y_BCHW, context)
            skips.append(y_BCHW)
        for layer in self.middle:
            y_BCHW = layer(y_BCHW, context)
        for layer in self.up:
            if isinstance(layer, Stage):
                y_BCHW = torch.cat([y_BCHW, skips.pop()], dim=1)
            y_BCHW = layer(y_BCHW, context)
        u_BCHW: Tensor = self.head(functional.silu(self.norm(y_BCHW)))
        return u_BCHW


def _layers(
    widths: list[int], blocks: int, attention_levels: Sequence[int], maker: _StageMaker
) -> tuple[nn.ModuleList, nn.ModuleList, nn.ModuleList]:
    """The way down, the middle, and the way up; each layer down leaves a skip connection."""
    down, up = nn.ModuleList(), nn.ModuleList()
    now = widths[0]
    skips = [now]
    for level, channels in enumerate(widths):
        if level:
            down.append(Downsample(now))
            skips.append(now)
        for _ in range(blocks):
            down.append(maker(now, channels, has_attention=level in attention_levels))
            skips.append(channels)
            now = channels
    middle = nn.ModuleList(
        [maker(now, now, has_attention=True), maker(now, now, has_attention=False)]
    )
    for level, channels in reversed(list(enumerate(widths))):
        for _ in range(blocks + 1):
            has_attention = level in attention_levels
            up.append(maker(now + skips.pop(), channels, has_attention=has_attention))
            now = channels
        if level:
            up.append(Upsample(now, widths[level - 1]))
            now = widths[level - 1]
    return down, middle, up


def _check_sizes(
    width: int,
    multipliers: Sequence[int],
    blocks: int,
    attention_levels: Sequence[int],
    embedding_width: int,
) -> None:
    if width < 4 or width % 4:
        raise ValueError(f"UNet width must be a positive multiple of 4, got {width}")
    if not multipliers or min(multipliers) < 1:
        raise ValueError(
            f"UNet multipliers must be one or more positive numbers, got {list(multipliers)}"
        )
    if blocks < 1:
        raise ValueError(f"UNet blocks must be at least 1, got {blocks}")
    if embedding_width < 2 or embedding_width % 2:
        raise ValueError(f"UNet embedding_width must be even and positive, got {embedding_width}")
    if not set(attention_levels) <= set(range(len(multipliers))):
        raise ValueError(
            f"UNet attention_levels must lie in 0..{len(multipliers) - 1}, "
            f"got {list(attention_levels)}"
        )
