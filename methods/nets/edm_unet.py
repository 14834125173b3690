"""The U-Net of EDM's models for CIFAR-10, as the network that its preconditioning is laid around.

Shape suffixes: B rows, C channels, H height, W width, F features, E embedding, K classes.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import ClassVar, Final, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from ..core.condition import NULL_LABEL, Condition
from ..core.dropout import Dropout
from ..core.flow_map import Domain, FlowMap
from .affine import Linear, scaled, shifted
from .condition_embedding import check_condition
from .edm_unet_block import (
    GROUP_WIDTH,
    NEARLY_ZERO,
    AffineGroupNorm,
    EDMBlock,
    convolution,
    linear,
)
from .image import image_shape

_NET: Final = "EDMUNet"
_SIGMA_MIN: Final = 0.002
_SIGMA_MAX: Final = 80.0
"""Between these levels lie the steps of their samplers."""
_LONGEST_PERIOD: Final = 1e4


@final
class EDMUNet(FlowMap):
    """EDM's DDPM++ network, told the noise level of its state as EDM tells it.

        net(z, s) = SongUNet(z, ln(sigma) / 4),   sigma = (1 - s) / s

    Inside ``Preconditioned`` the velocity is (D(x / s, sigma) - x) / (1 - s) with EDM's denoiser D,
    and the weights have the names of EDM's own file behind ``net.``: those of its ``EDMPrecond``,
    whose network is called ``model``. The constant filters of its file are kept too.

    A time outside the domain is read as the nearer of its ends: no other level was trained. Where
    the domain reaches pure noise or the data, at which ln(sigma) is infinite, that end is sigma 80
    or 0.002, the first and the last level of EDM's samplers. The end time of a jump is not told, so
    that the network can be a velocity, or a map to the data, but not a map of two times.

    Reference: Karras et al. 2022, arXiv:2206.00364v2, Table 1 and section 5; layout of Song
        et al. 2021, arXiv:2011.13456v2, DDPM++.
    Differs from the paper: the labels of the augmentation are not an input. EDM adds a linear map
        of them, without bias, to the features of the level, and sets them to zero in sampling.

    Args:
        shape: Shape of a datum: channels, height, width.
        domain: The (s, t) on which the map is trained.
        classes: Classes of the labels, 0 for an unconditional network.
        width: Channels by which those of all levels are counted, a multiple of 4.
        multipliers: Channels of each level, as multiples of the width; each level halves the side
            of the one before it.
        blocks: Residual blocks of a level on the way down; there is one more on the way up.
        attention_levels: Levels with attention in each block on the way down, and in the last on
            the way up; the middle always has one. EDM names them by their side: 16 is level 1 of
            an image of 32 x 32.
        dropout: Share of the activations that each block drops in training, in [0, 1).

    Raises:
        ValueError: If the images have a shape that the network cannot take, or a size is wrong.
    """

    is_told_end: ClassVar[bool] = False

    def __init__(
        self,
        *,
        shape: tuple[int, ...],
        domain: Domain,
        classes: int = 0,
        width: int = 128,
        multipliers: Sequence[int] = (2, 2, 2),
        blocks: int = 4,
        attention_levels: Sequence[int] = (1,),
        dropout: float = 0.13,
    ) -> None:
        super().__init__(domain=domain)
        _check_sizes(width, multipliers, blocks, attention_levels)
        self.classes = classes
        self.model = _SongUNet(
            image_shape(shape, net=_NET, multiple=2 ** (len(multipliers) - 1)),
            classes=classes,
            width=width,
            multipliers=multipliers,
            blocks=blocks,
            attention_levels=attention_levels,
            dropout=dropout,
        )

    def forward(
        self,
        x: Float[Tensor, " b *d"],
        s: Float[Tensor, " b"],
        t: Float[Tensor, " b"],
        condition: Condition | None = None,
    ) -> Float[Tensor, " b *d"]:
        """What the network says of the state x, of unit variance, at the noise level of s."""
        del t
        check_condition(condition, classes=self.classes, vocabulary=0, guided=False)
        given = None if condition is None else condition.label
        label_B = torch.full((len(x),), NULL_LABEL, device=x.device) if given is None else given
        said: Tensor = self.model(x, self._level(s), label_B)
        return said

    def _level(self, s_B: Tensor) -> Tensor:
        """The quarter of ln(sigma), finite at every time."""
        first = self.domain.t_lo or 1.0 / (1.0 + _SIGMA_MAX)
        last = self.domain.t_hi if self.domain.t_hi < 1.0 else 1.0 / (1.0 + _SIGMA_MIN)
        return scaled(torch.logit(s_B.clamp(first, last)), -0.25)


@final
class _SongUNet(nn.Module):
    """The network with the names of EDM's file; its layers are called by the sides of their images.

    Args:
        image: Channels, height and width.
        classes: Classes, 0 for none.
        width: Channels by which those of the levels are counted.
        multipliers: Channels of each level, as multiples of the width.
        blocks: Blocks of a level on the way down.
        attention_levels: Levels with attention.
        dropout: Share of the activations that is dropped.
    """

    def __init__(
        self,
        image: tuple[int, int, int],
        *,
        classes: int,
        width: int,
        multipliers: Sequence[int],
        blocks: int,
        attention_levels: Sequence[int],
        dropout: float,
    ) -> None:
        super().__init__()
        self.classes = classes
        omega_F = _LONGEST_PERIOD ** -torch.linspace(0.0, 1.0, width // 2)
        self.omega_F: Tensor
        self.register_buffer("omega_F", omega_F, persistent=False)
        self.map_label = linear(classes, width) if classes else None
        self.map_layer0 = linear(width, 4 * width)
        self.map_layer1 = linear(4 * width, 4 * width)
        maker = _BlockMaker(embedding_width=4 * width, dropout=dropout)
        widths = [width * multiplier for multiplier in multipliers]
        channels, height, breadth = image
        sides = [f"{height >> level}x{breadth >> level}" for level in range(len(widths))]
        self.enc, self.dec = nn.ModuleDict(), nn.ModuleDict()
        self.enc[f"{sides[0]}_conv"] = convolution(channels, width, 3)
        skips = [now := width]
        for level, (side, then) in enumerate(zip(sides, widths, strict=True)):
            if level:
                self.enc[f"{side}_down"] = maker(now, now, resample=nn.AvgPool2d(2))
                skips.append(now)
            for index in range(blocks):
                has_attention = level in attention_levels
                self.enc[f"{side}_block{index}"] = maker(now, then, has_attention=has_attention)
                skips.append(now := then)
        self.dec[f"{sides[-1]}_in0"] = maker(now, now, has_attention=True)
        self.dec[f"{sides[-1]}_in1"] = maker(now, now)
        for level, (side, then) in reversed(list(enumerate(zip(sides, widths, strict=True)))):
            if level < len(widths) - 1:
                self.dec[f"{side}_up"] = maker(now, now, resample=nn.Upsample(scale_factor=2.0))
            for index in range(blocks + 1):
                has_attention = index == blocks and level in attention_levels
                self.dec[f"{side}_block{index}"] = maker(
                    now, then, joined=skips.pop(), has_attention=has_attention
                )
                now = then
        self.dec[f"{sides[0]}_aux_norm"] = AffineGroupNorm(now)
        self.dec[f"{sides[0]}_aux_conv"] = convolution(now, channels, 3, gain=NEARLY_ZERO)

    def forward(self, x_BCHW: Tensor, level_B: Tensor, label_B: Tensor) -> Tensor:
        """An image of the same shape."""
        e_BE = self._embedding(level_B, label_B)
        stem, *down = self.enc.values()
        *layers, norm, head = self.dec.values()
        skips = [y_BCHW := stem(x_BCHW)]
        for block in down:
            skips.append(y_BCHW := block(y_BCHW, e_BE))
        for block in layers:
            assert isinstance(block, EDMBlock), "the norm and the head come last"
            if block.joined:
                y_BCHW = torch.cat([y_BCHW, skips.pop()], dim=1)
            y_BCHW = block(y_BCHW, e_BE)
        said_BCHW: Tensor = head(functional.silu(norm(y_BCHW)))
        return said_BCHW

    def _embedding(self, level_B: Tensor, label_B: Tensor) -> Tensor:
        """Vector by which the blocks are shifted, without autocast, which would round the level."""
        with torch.autocast(level_B.device.type, enabled=False):
            angle_BF = scaled(level_B[:, None], self.omega_F)
            features_BF = torch.cat([angle_BF.sin(), angle_BF.cos()], dim=1)
            features_BF = features_BF.to(self.map_layer0.weight.dtype)
            if self.map_label is not None:
                features_BF = shifted(features_BF, self._label(self.map_label, label_B))
            e_BE = functional.silu(self.map_layer0(features_BF))
            return functional.silu(self.map_layer1(e_BE))

    def _label(self, layer: Linear, label_B: Tensor) -> Tensor:
        """Features of a one-hot label of unit mean square; no label is all zeros."""
        class_K = torch.arange(self.classes, device=label_B.device)
        one_hot_BK = (label_B[:, None] == class_K).to(layer.weight.dtype)
        features_BF: Tensor = layer(math.sqrt(self.classes) * one_hot_BK)
        return features_BF


@dataclass(frozen=True, kw_only=True)
class _BlockMaker:
    """What all blocks of one network have in common."""

    embedding_width: int
    dropout: float
    ordinals: Iterator[int] = field(default_factory=count)

    def __call__(
        self,
        channels_in: int,
        channels: int,
        *,
        joined: int = 0,
        resample: nn.Module | None = None,
        has_attention: bool = False,
    ) -> EDMBlock:
        return EDMBlock(
            channels_in + joined,
            channels,
            embedding_width=self.embedding_width,
            dropout=Dropout(self.dropout, ordinal=next(self.ordinals)),
            resample=resample,
            has_attention=has_attention,
            joined=joined,
        )


def _check_sizes(
    width: int, multipliers: Sequence[int], blocks: int, attention_levels: Sequence[int]
) -> None:
    if width < GROUP_WIDTH or width % GROUP_WIDTH:
        raise ValueError(f"{_NET} width must be a positive multiple of 4, got {width}")
    if not multipliers or min(multipliers) < 1:
        raise ValueError(
            f"{_NET} multipliers must be one or more positive numbers, got {list(multipliers)}"
        )
    if blocks < 1:
        raise ValueError(f"{_NET} blocks must be at least 1, got {blocks}")
    if not set(attention_levels) <= set(range(len(multipliers))):
        raise ValueError(
            f"{_NET} attention_levels must lie in 0..{len(multipliers) - 1}, "
            f"got {list(attention_levels)}"
        )
