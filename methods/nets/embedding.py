"""Embedding of everything but the state: times, label and guidance scale in one vector.

Shape suffixes: B rows, E embedding.
"""

from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..core.condition import Condition
from .affine import Linear
from .condition_embedding import ConditionEmbedding
from .time_embedding import TimeEmbedding


@final
class Embedding(nn.Module):
    """Vector by which each block of a network is modulated.

    It is computed without autocast: in bfloat16 neighbouring times would collide.

    Args:
        width: Width of the vector.
        classes: Classes, 0 for none.
        guided: Whether the guidance scale is an input.
        max_cycles: Periods of the fastest time feature over the unit interval.
    """

    def __init__(self, width: int, *, classes: int, guided: bool, max_cycles: float) -> None:
        super().__init__()
        self.time = TimeEmbedding(width, max_cycles=max_cycles)
        self.condition = ConditionEmbedding(
            width, classes=classes, guided=guided, max_cycles=max_cycles
        )
        self.shared = Linear(width, width)

    def forward(self, s_B: Tensor, h_B: Tensor, condition: Condition | None) -> Tensor:
        """Vector of each row."""
        with torch.autocast(s_B.device.type, enabled=False):
            e_BE = self.condition(self.time(s_B, h_B), condition)
            return functional.silu(self.shared(functional.silu(e_BE)))
