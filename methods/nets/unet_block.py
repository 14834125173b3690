"""The layers of the U-Net; each takes an image and its context and gives an image.

Shape suffixes: B rows, C channels, H height, W width, N = H W places, E embedding.
"""

from typing import NamedTuple, final

from torch import Tensor, nn
from torch.nn import functional

from ..core.dropout import Dropout
from .affine import Conv2d, Linear, modulated
from .attention import CrossAttention, SelfAttention
from .norm import GroupNorm, standardised


class Context(NamedTuple):
    """What every layer sees beside the image: the embedding, and the tokens if there are any."""

    embedding: Tensor
    tokens: tuple[Tensor, Tensor] | None


@final
class ResidualBlock(nn.Module):
    """Two convolutions, the second one modulated; the identity at the start.

    Args:
        channels_in: Channels of the input.
        channels: Channels of the output.
        embedding_width: Width of the embedding.
        dropout: The dropout before the second convolution.
    """

    def __init__(
        self, channels_in: int, channels: int, *, embedding_width: int, dropout: Dropout
    ) -> None:
        super().__init__()
        self.norm_in = GroupNorm(channels_in)
        self.conv_in = Conv2d(channels_in, channels, 3, padding=1)
        self.modulation = Linear(embedding_width, 2 * channels)
        self.norm_out = GroupNorm(channels)
        self.dropout = dropout
        self.conv_out = Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)
        assert self.conv_out.bias is not None, "a convolution has a bias by default"
        nn.init.zeros_(self.conv_out.bias)
        is_same = channels_in == channels
        self.skip = nn.Identity() if is_same else Conv2d(channels_in, channels, 1)

    def forward(self, x_BCHW: Tensor, e_BE: Tensor) -> Tensor:
        """Channels of the next layer."""
        y_BCHW = self.conv_in(functional.silu(self.norm_in(x_BCHW)))
        scale_BC11, shift_BC11 = self.modulation(e_BE)[:, :, None, None].chunk(2, dim=1)
        y_BCHW = modulated(self.norm_out(y_BCHW), scale_BC11, shift_BC11)
        y_BCHW = self.conv_out(self.dropout(functional.silu(y_BCHW)))
        out_BCHW: Tensor = self.skip(x_BCHW) + y_BCHW
        return out_BCHW


@final
class ImageAttention(nn.Module):
    """Attention among the places of an image, then to the tokens; the identity at the start.

    Args:
        channels: Channels.
        heads: Number of heads, a divisor of the channels.
        context_width: Width of the tokens' embedding, 0 for none.
    """

    def __init__(self, channels: int, *, heads: int, context_width: int) -> None:
        super().__init__()
        self.norm = GroupNorm(channels)
        self.attention = SelfAttention(channels, heads=heads)
        self.cross_attention: CrossAttention | None = None
        if context_width:
            self.cross_attention = CrossAttention(
                channels, heads=heads, context_width=context_width
            )

    def forward(self, x_BCHW: Tensor, context: Context) -> Tensor:
        """The image with what its places gathered."""
        normed_BNC = self.norm(x_BCHW).flatten(2).transpose(1, 2)
        y_BNC: Tensor = x_BCHW.flatten(2).transpose(1, 2) + self.attention(normed_BNC)
        if self.cross_attention is not None:
            assert context.tokens is not None, "a network with cross-attention embeds its tokens"
            y_BNC = y_BNC + self.cross_attention(standardised(y_BNC), *context.tokens)
        return y_BNC.transpose(1, 2).reshape(x_BCHW.shape)


@final
class Stage(nn.Module):
    """A residual block, with attention behind it or not.

    Args:
        block: The residual block.
        attention: The attention, or None.
    """

    def __init__(self, block: ResidualBlock, attention: ImageAttention | None) -> None:
        super().__init__()
        self.block = block
        self.attention = attention

    def forward(self, x_BCHW: Tensor, context: Context) -> Tensor:
        """Channels of the next layer."""
        y_BCHW: Tensor = self.block(x_BCHW, context.embedding)
        return y_BCHW if self.attention is None else self.attention(y_BCHW, context)


@final
class Downsample(nn.Module):
    """Half the side by a convolution of stride two.

    Args:
        channels: Channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x_BCHW: Tensor, context: Context) -> Tensor:
        """Image of half the side."""
        del context
        y_BCHW: Tensor = self.conv(x_BCHW)
        return y_BCHW


@final
class Upsample(nn.Module):
    """Twice the side by repetition, of as many channels as the next level has.

    Args:
        channels_in: Channels of the input.
        channels: Channels of the output.
    """

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.conv = Conv2d(channels_in, channels, 1)

    def forward(self, x_BCHW: Tensor, context: Context) -> Tensor:
        """Image of twice the side."""
        del context
        return functional.interpolate(self.conv(x_BCHW), scale_factor=2.0, mode="nearest")
