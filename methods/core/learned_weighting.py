"""A loss weight that is learned beside the network, so that all times have one weighted loss."""

import math
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .flow_map import FlowMap


@final
class LogWeight(nn.Module):
    """Logarithm of a weight as a function of time, zero at the start.

    Args:
        waves: How many cosines of [0, 1] it is made of, besides the constant.
    """

    def __init__(self, *, waves: int) -> None:
        super().__init__()
        self.heights = nn.Parameter(torch.zeros(waves + 1))

    def forward(self, s: Float[Tensor, "b"]) -> Float[Tensor, "b"]:
        """Value at each time."""
        order = torch.arange(len(self.heights), dtype=s.dtype, device=s.device)
        # A sum of products instead of a matrix product, which autocast would round.
        value: Tensor = (torch.cos(math.pi * s[:, None] * order) * self.heights).sum(1)
        return value


@final
@dataclass(frozen=True, kw_only=True)
class LearnedWeighting:
    """exp(w(s)) error - w(s), with w a companion that is trained with the network.

    For given errors the best w is -log of their mean at s, so that all times weigh alike.

    Reference: Lu and Song 2024, arXiv:2410.11081v1, section 4.2, after EDM2.
    Differs from the paper: w is a sum of cosines of time in place of a network.

    Attributes:
        waves: How many cosines w is made of, at least 1.

    Raises:
        ValueError: If there is none.
    """

    waves: int = 8

    def __post_init__(self) -> None:
        if self.waves < 1:
            raise ValueError(f"learned weighting needs at least 1 wave, got {self.waves}")

    def companion(self, flow_map: FlowMap) -> nn.Module:
        """The part that is trained; it is the same for every network."""
        del flow_map
        return LogWeight(waves=self.waves)

    def __call__(
        self, log_weight: nn.Module, error: Float[Tensor, "b"], s: Float[Tensor, "b"]
    ) -> Float[Tensor, "b"]:
        """Weighted errors; gradients reach the companion."""
        w: Tensor = log_weight(s)
        return w.exp() * error - w
