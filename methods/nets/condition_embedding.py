"""Embedding of what a sample is conditioned on: label, guidance scale, tokens.

Shape suffixes: B rows, N tokens, E embedding.
"""

import math
from typing import final

import torch
from torch import Tensor, nn

from ..core.condition import NULL_LABEL, Condition
from .affine import shifted
from .time_embedding import VanishingLinear


def check_condition(
    condition: Condition | None, *, classes: int, vocabulary: int, guided: bool
) -> None:
    """Refuse a condition with a part that the network does not take.

    Args:
        condition: Condition of the rows, or None.
        classes: Classes of the network, 0 if it takes no label.
        vocabulary: Token vocabulary of the network, 0 if it takes no tokens.
        guided: Whether the network takes a guidance scale.

    Raises:
        ValueError: If a part of the condition would be ignored.
    """
    if condition is None:
        return
    if condition.label is not None and not classes:
        raise ValueError("network takes no class labels, got labels; build it with classes > 0")
    if condition.tokens is not None and not vocabulary:
        raise ValueError("network takes no tokens, got tokens; build it with vocabulary > 0")
    if condition.guidance is not None and not guided:
        raise ValueError(
            "network takes no guidance scale, got guidance scales; build it with guided true"
        )


def require_no_tokens(net: str, vocabulary: int) -> None:
    """Refuse a vocabulary where a network has no attention for tokens.

    Args:
        net: Name of the network.
        vocabulary: What it was asked for.

    Raises:
        ValueError: If it is not 0.
    """
    if vocabulary:
        raise ValueError(f"{net} takes no tokens, got vocabulary {vocabulary}; allowed is 0")


def conditions_of(net: nn.Module) -> frozenset[str]:
    """The parts of a condition beside the label that a network, or one within it, has weights for.

    Args:
        net: The network.
    """
    parts = set[str]()
    for module in net.modules():
        if isinstance(module, TokenEmbedding):
            parts.add("tokens")
        elif isinstance(module, ConditionEmbedding) and module.guidance is not None:
            parts.add("guidance")
    return frozenset(parts)


def scale_weights(net: nn.Module) -> frozenset[str]:
    """Names of the weights by which a network takes a guidance scale; none where it takes none.

    They are zero at the start, where the network is the same at every scale.

    Args:
        net: The network.
    """
    return frozenset(
        f"{name}.guidance.{weight}".removeprefix(".")
        for name, module in net.named_modules()
        if isinstance(module, ConditionEmbedding) and module.guidance is not None
        for weight in module.guidance.state_dict()
    )


def vocabulary_of(net: nn.Module) -> int:
    """Number of tokens that a network, or one within it, has weights for; 0 for none.

    Args:
        net: The network.
    """
    found = (part.vocabulary for part in net.modules() if isinstance(part, TokenEmbedding))
    return next(found, 0)


def _with_null_last(id_: Tensor, size: int) -> Tensor:
    return torch.where(id_ == NULL_LABEL, size, id_)


@final
class ConditionEmbedding(nn.Module):
    """Embedding of label and guidance scale, added to that of the times.

    Args:
        width: Width of the embedding.
        classes: Classes, 0 for none; the null label has an embedding of its own.
        guided: Whether the guidance scale w > 0 is an input. It enters as 1 - 1/w, so that w = 1,
            no guidance, embeds as zero.
        max_cycles: Periods of the fastest feature of 1 - 1/w over the unit interval.
    """

    def __init__(self, width: int, *, classes: int, guided: bool, max_cycles: float) -> None:
        super().__init__()
        self.classes = classes
        self.label = nn.Embedding(classes + 1, width) if classes else None
        self.guidance = VanishingLinear(width, max_cycles=max_cycles) if guided else None

    def forward(self, e_BE: Tensor, condition: Condition | None) -> Tensor:
        """The embedding of the times with that of the condition added."""
        if self.label is not None:
            label_B = None if condition is None else condition.label
            if label_B is None:
                e_BE = shifted(e_BE, self.label.weight[self.classes])
            else:
                e_BE = shifted(e_BE, self.label(_with_null_last(label_B, self.classes)))
        if self.guidance is not None and condition is not None and condition.guidance is not None:
            e_BE = e_BE + self.guidance(1.0 - condition.guidance.reciprocal())
        return e_BE


@final
class TokenEmbedding(nn.Module):
    """Embedding of token sequences for cross-attention.

    A null token stands in front of every sequence and padding is masked, so that the length of
    the padding changes nothing and a sequence of padding equals no sequence.

    Args:
        vocabulary: Number of tokens.
        width: Width of the embedding, even.
    """

    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.token = nn.Embedding(vocabulary + 1, width)

    def forward(self, condition: Condition | None, rows: int) -> tuple[Tensor, Tensor]:
        """Embeddings [B, N, E] and which of them may be attended to, bool [B, N]."""
        null_B1 = torch.full((rows, 1), NULL_LABEL, device=self.token.weight.device)
        given = None if condition is None else condition.tokens
        id_BN = null_B1 if given is None else torch.cat([null_B1, given], dim=1)
        is_token_BN = id_BN != NULL_LABEL
        is_token_BN = torch.cat([torch.ones_like(is_token_BN[:, :1]), is_token_BN[:, 1:]], dim=1)
        e_BNE = self.token(_with_null_last(id_BN, self.vocabulary))
        return e_BNE + self._position(id_BN.shape[1], e_BNE), is_token_BN

    def _position(self, n: int, like: Tensor) -> Tensor:
        half = like.shape[-1] // 2
        place_N = torch.arange(n, device=like.device, dtype=like.dtype)
        rate_E = torch.exp(
            torch.arange(half, device=like.device, dtype=like.dtype) * (-math.log(1e4) / half)
        )
        angle_NE = place_N[:, None] * rate_E
        return torch.cat([angle_NE.sin(), angle_NE.cos()], dim=1)
