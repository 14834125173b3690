"""The layers of EDM's U-Net, with the names of its weights.

Shape suffixes: B rows, C channels, H height, W width, N = H W places, D channels of the one head,
E embedding.
"""

import math
from typing import Final, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..core.dropout import Dropout
from .affine import Conv2d, Linear, scaled, shifted
from .norm import standardised

NEARLY_ZERO: Final = 1e-5
"""Gain of the layers that a new network nearly does without."""
GROUP_WIDTH: Final = 4
_MAX_GROUPS: Final = 32
_EPS: Final = 1e-6
_SUM: Final = math.sqrt(0.5)
"""Factor of a sum of two branches, which keeps its variance."""


@final
class AffineGroupNorm(nn.Module):
    """Group normalisation of at most 32 groups, with a weight and a bias for each channel.

    Args:
        channels: Channels, a multiple of the groups.

    Raises:
        ValueError: If the groups do not divide the channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.groups = min(_MAX_GROUPS, channels // GROUP_WIDTH)
        if channels % self.groups:
            raise ValueError(
                f"EDMUNet needs layers whose channels {self.groups} groups divide, got {channels}; "
                f"a width that is a multiple of {_MAX_GROUPS} has no others"
            )
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """The image, its groups standardised, and each channel scaled and shifted."""
        grouped = x_BCHW.reshape(len(x_BCHW), self.groups, -1)
        y_BCHW = standardised(grouped, eps=_EPS).view(x_BCHW.shape)
        return shifted(scaled(y_BCHW, self.weight[:, None, None]), self.bias[:, None, None])


@final
class EDMBlock(nn.Module):
    """Two convolutions, shifted by the embedding between them, and attention behind them or not.

    Args:
        channels_in: Channels of the input, those of the skip connection included.
        channels: Channels of the output.
        embedding_width: Width of the embedding.
        dropout: The dropout before the second convolution.
        resample: What changes the side, or None.
        has_attention: Whether there is attention.
        joined: Channels of the skip connection that it takes, 0 for none.
    """

    def __init__(
        self,
        channels_in: int,
        channels: int,
        *,
        embedding_width: int,
        dropout: Dropout,
        resample: nn.Module | None,
        has_attention: bool,
        joined: int,
    ) -> None:
        super().__init__()
        self.has_attention, self.joined = has_attention, joined
        self.norm0 = AffineGroupNorm(channels_in)
        self.resample = nn.Identity() if resample is None else resample
        self.conv0 = convolution(channels_in, channels, 3)
        self.affine = linear(embedding_width, channels)
        self.norm1 = AffineGroupNorm(channels)
        self.dropout = dropout
        self.conv1 = convolution(channels, channels, 3, gain=NEARLY_ZERO)
        is_same = resample is None and channels_in == channels
        self.skip = nn.Identity() if is_same else convolution(channels_in, channels, 1)
        if resample is not None:
            # The file holds the box filter, of which the mean and the repetition are a faster form.
            for layer in (self.conv0, self.skip):
                layer.register_buffer("resample_filter", torch.full((1, 1, 2, 2), 0.25))
        if has_attention:
            self.norm2 = AffineGroupNorm(channels)
            self.qkv = convolution(channels, 3 * channels, 1, gain=math.sqrt(0.2))
            self.proj = convolution(channels, channels, 1, gain=NEARLY_ZERO)

    def forward(self, x_BCHW: Tensor, e_BE: Tensor) -> Tensor:
        """Channels of the next layer."""
        y_BCHW = self.conv0(self.resample(functional.silu(self.norm0(x_BCHW))))
        y_BCHW = y_BCHW + self.affine(e_BE)[:, :, None, None]
        y_BCHW = self.conv1(self.dropout(functional.silu(self.norm1(y_BCHW))))
        y_BCHW = scaled(self.skip(self.resample(x_BCHW)) + y_BCHW, _SUM)
        return self._attended(y_BCHW) if self.has_attention else y_BCHW

    def _attended(self, x_BCHW: Tensor) -> Tensor:
        # Query, key and value of a channel lie side by side.
        qkv_BDQN = self.qkv(self.norm2(x_BCHW)).flatten(2).unflatten(1, (-1, 3))
        q_B1ND, k_B1ND, v_B1ND = qkv_BDQN.transpose(1, 3).unsqueeze(1).unbind(3)
        y_B1ND = functional.scaled_dot_product_attention(q_B1ND, k_B1ND, v_B1ND)
        y_BCHW = self.proj(y_B1ND.squeeze(1).transpose(1, 2).reshape(x_BCHW.shape))
        return scaled(x_BCHW + y_BCHW, _SUM)


def linear(width_in: int, width: int) -> Linear:
    """A new linear layer, as EDM begins with it."""
    layer = Linear(width_in, width)
    _initialise(layer)
    return layer


def convolution(channels_in: int, channels: int, side: int, *, gain: float = 1.0) -> Conv2d:
    """A new convolution of odd side that keeps that of the image, as EDM begins with it."""
    layer = Conv2d(channels_in, channels, side, padding=side // 2)
    _initialise(layer, gain=gain)
    return layer


def _initialise(layer: Linear | Conv2d, *, gain: float = 1.0) -> None:
    nn.init.xavier_uniform_(layer.weight, gain=gain)
    assert layer.bias is not None, "a layer has a bias by default"
    nn.init.zeros_(layer.bias)
