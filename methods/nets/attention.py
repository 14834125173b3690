"""Attention between the places of an image, and from places to tokens.

The back-end is left to the caller: fused kernels have no forward-mode derivative, and
``methods/core/calculus.py`` pins the mathematical one where it takes derivatives.

Shape suffixes: B rows, N places, M tokens, C channels, K heads, D channels of a head,
E embedding, Q the three of query, key and value, P the two of key and value.
"""

from typing import final

from torch import Tensor, nn
from torch.nn import functional

from .affine import Linear


def heads_of(width: int, head_width: int) -> int:
    """Number of heads of this width in a layer.

    Args:
        width: Channels of the layer.
        head_width: Channels of a head.

    Raises:
        ValueError: If the heads do not fill the layer.
    """
    if head_width < 1 or width % head_width:
        raise ValueError(
            f"head_width must divide the {width} channels of a layer, got {head_width}"
        )
    return width // head_width


@final
class SelfAttention(nn.Module):
    """Multi-head attention of places to each other; zero at the start.

    Args:
        width: Channels.
        heads: Number of heads, a divisor of the channels.
    """

    def __init__(self, width: int, *, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = Linear(width, 3 * width)
        self.out = Linear(width, width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x_BNC: Tensor) -> Tensor:
        """What each place gathers from the others."""
        qkv_BNQKD = self.qkv(x_BNC).unflatten(2, (3, self.heads, -1))
        q_BKND, k_BKND, v_BKND = qkv_BNQKD.permute(2, 0, 3, 1, 4).unbind(0)
        y_BKND = functional.scaled_dot_product_attention(q_BKND, k_BKND, v_BKND)
        y_BNC: Tensor = self.out(y_BKND.transpose(1, 2).flatten(2))
        return y_BNC


@final
class CrossAttention(nn.Module):
    """Multi-head attention from places to tokens; zero at the start.

    Args:
        width: Channels.
        heads: Number of heads, a divisor of the channels.
        context_width: Width of the tokens' embedding.
    """

    def __init__(self, width: int, *, heads: int, context_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = Linear(width, width)
        self.key_value = Linear(context_width, 2 * width)
        self.out = Linear(width, width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x_BNC: Tensor, context_BME: Tensor, is_token_BM: Tensor) -> Tensor:
        """What each place gathers from the tokens that are not padding."""
        q_BKND = self.query(x_BNC).unflatten(2, (self.heads, -1)).transpose(1, 2)
        kv_BMPKD = self.key_value(context_BME).unflatten(2, (2, self.heads, -1))
        k_BKMD, v_BKMD = kv_BMPKD.permute(2, 0, 3, 1, 4).unbind(0)
        mask_B11M = is_token_BM[:, None, None]
        y_BKND = functional.scaled_dot_product_attention(
            q_BKND, k_BKMD, v_BKMD, attn_mask=mask_B11M
        )
        y_BNC: Tensor = self.out(y_BKND.transpose(1, 2).flatten(2))
        return y_BNC
