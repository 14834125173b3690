"""A diffusion transformer: attention among the patches of an image.

Shape suffixes: B rows, C channels of the image, H height, W width, N patches, D channels of the
transformer, P values of a patch, E embedding, M tokens.
"""

from typing import Final, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from ..core.condition import Condition
from ..core.dropout import Dropout
from ..core.flow_map import Domain, FlowMap
from .affine import Linear, modulated, shifted
from .attention import CrossAttention, SelfAttention, heads_of
from .condition_embedding import TokenEmbedding, check_condition
from .embedding import Embedding
from .image import image_shape
from .norm import standardised

_EXPANSION: Final = 4
_POSITION_STD: Final = 0.02


def _zeroed(linear: nn.Linear) -> nn.Linear:
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


def _modulated(x_BND: Tensor, scale_BD: Tensor, shift_BD: Tensor) -> Tensor:
    return modulated(standardised(x_BND), scale_BD[:, None], shift_BD[:, None])


@final
class DiTBlock(nn.Module):
    """Attention and a perceptron, both modulated and gated; the identity at the start.

    Args:
        width: Channels of the transformer.
        heads: Number of heads, a divisor of the channels.
        embedding_width: Width of the embedding.
        context_width: Width of the tokens' embedding, 0 for none.
        dropout: The dropout inside the perceptron.
    """

    def __init__(
        self,
        width: int,
        *,
        heads: int,
        embedding_width: int,
        context_width: int,
        dropout: Dropout,
    ) -> None:
        super().__init__()
        self.modulation = _zeroed(Linear(embedding_width, 6 * width))
        self.attention = SelfAttention(width, heads=heads)
        # The gate is zero at the start already; two zeros in a row would have no gradient.
        nn.init.xavier_uniform_(self.attention.out.weight)
        self.cross_attention: CrossAttention | None = None
        if context_width:
            self.cross_attention = CrossAttention(width, heads=heads, context_width=context_width)
        self.inner = Linear(width, _EXPANSION * width)
        self.dropout = dropout
        self.outer = Linear(_EXPANSION * width, width)

    def forward(self, x_BND: Tensor, e_BE: Tensor, tokens: tuple[Tensor, Tensor] | None) -> Tensor:
        """Channels of the next block."""
        scale1, shift1, gate1, scale2, shift2, gate2 = self.modulation(e_BE).chunk(6, dim=1)
        x_BND = x_BND + gate1[:, None] * self.attention(_modulated(x_BND, scale1, shift1))
        if self.cross_attention is not None:
            assert tokens is not None, "a network with cross-attention embeds its tokens"
            x_BND = x_BND + self.cross_attention(standardised(x_BND), *tokens)
        y_BND = functional.gelu(self.inner(_modulated(x_BND, scale2, shift2)), approximate="tanh")
        out_BND: Tensor = x_BND + gate2[:, None] * self.outer(self.dropout(y_BND))
        return out_BND


@final
class DiT(FlowMap):
    """A diffusion transformer of (x, s, t - s, condition).

    Reference: Peebles and Xie 2023, arXiv:2212.09748v2, Section 3, adaLN-Zero.

    Args:
        shape: Shape of a datum: channels, height, width.
        domain: The (s, t) on which the map is trained.
        classes: Classes of the labels, 0 for an unconditional network.
        vocabulary: Number of tokens, 0 for none; every block attends to them.
        guided: Whether the guidance scale is an input.
        patch: Side of a patch, a divisor of both sides of the image.
        width: Channels of the transformer, even.
        depth: Number of blocks.
        head_width: Channels of an attention head.
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
        patch: int = 2,
        width: int = 64,
        depth: int = 4,
        head_width: int = 32,
        dropout: float = 0.0,
        max_cycles: float = 4.0,
    ) -> None:
        super().__init__(domain=domain)
        if min(patch, depth) < 1:
            raise ValueError(f"DiT patch and depth must be at least 1, got {patch} and {depth}")
        if width < 2 or width % 2:
            raise ValueError(f"DiT width must be even and positive, got {width}")
        channels, height, image_width = image_shape(shape, net="DiT", multiple=patch)
        self.classes, self.vocabulary, self.guided = classes, vocabulary, guided
        self.patch = patch
        self.embedding = Embedding(width, classes=classes, guided=guided, max_cycles=max_cycles)
        self.tokens = TokenEmbedding(vocabulary, width) if vocabulary else None
        size = channels * patch * patch
        self.stem = Linear(size, width)
        patches = height * image_width // patch**2
        self.position_ND = nn.Parameter(_POSITION_STD * torch.randn(patches, width))
        self.blocks = nn.ModuleList(
            DiTBlock(
                width,
                heads=heads_of(width, head_width),
                embedding_width=width,
                context_width=width if vocabulary else 0,
                dropout=Dropout(dropout, ordinal=ordinal),
            )
            for ordinal in range(depth)
        )
        self.modulation = _zeroed(Linear(width, 2 * width))
        self.head = _zeroed(Linear(width, size))

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
        e_BE = self.embedding(s, t - s, condition)
        y_BND = shifted(self.stem(self._patches(x)), self.position_ND)
        for block in self.blocks:
            y_BND = block(y_BND, e_BE, tokens)
        scale_BD, shift_BD = self.modulation(e_BE).chunk(2, dim=1)
        u_BNP = self.head(_modulated(y_BND, scale_BD, shift_BD))
        return self._image(u_BNP, x)

    def _patches(self, x_BCHW: Tensor) -> Tensor:
        p = self.patch
        rows, channels, height, width = x_BCHW.shape
        grid_BCHPWP = x_BCHW.reshape(rows, channels, height // p, p, width // p, p)
        return grid_BCHPWP.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)

    def _image(self, u_BNP: Tensor, like_BCHW: Tensor) -> Tensor:
        p = self.patch
        rows, channels, height, width = like_BCHW.shape
        grid_BHWCPP = u_BNP.reshape(rows, height // p, width // p, channels, p, p)
        return grid_BHWCPP.permute(0, 3, 1, 4, 2, 5).reshape(like_BCHW.shape)
