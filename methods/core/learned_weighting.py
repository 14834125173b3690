"""A loss weight that is learned beside the network, so that all times have one weighted loss."""

import math
from dataclasses import dataclass
from typing import Final, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .count import require_whole
from .flow_map import FlowMap

LOSS_WEIGHT: Final = "loss_weight"
"""The companion that methods with a learned weight have."""


@final
class LogError(nn.Module):
    """Logarithm of the error that is usual at (s, t), zero at the start.

    Where every jump ends at the data, the cosines of t - s are those of s up to their sign: half of
    the heights are one too many there, which makes them learn at twice the rate and nothing else.

    Args:
        waves: How many cosines of s, and of t - s, it is a sum of, besides the constant.
    """

    def __init__(self, *, waves: int) -> None:
        super().__init__()
        self.constant = nn.Parameter(torch.zeros(()))
        self.heights = nn.Parameter(torch.zeros(2, waves))

    def forward(self, s: Float[Tensor, " b"], t: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Value at each pair of times."""
        order = torch.arange(1, self.heights.shape[1] + 1, dtype=s.dtype, device=s.device)
        at = torch.stack([s, t - s], dim=1)[..., None]
        # A sum of products instead of a matrix product, which autocast would round.
        waves: Tensor = (torch.cos(math.pi * at * order) * self.heights).sum((1, 2))
        return self.constant + waves


@final
@dataclass(frozen=True, kw_only=True)
class LearnedWeighting:
    """exp(-w(s, t)) (error + offset) + w(s, t), with w a companion trained with the network.

    Least where exp(w) is the mean of error plus offset, so that all times weigh alike.

    Reference: Kendall et al. 2017, arXiv:1705.07115v3, Eq. (7); Karras et al. 2023 (EDM2),
        arXiv:2312.02696v2, appendix B.2.
    Differs from the paper: w is a sum of cosines of the times in place of a network; the offset.

    Attributes:
        waves: How many cosines of each time w is made of, at least 1.
        offset: Least error that is told from none, at least 0. Errors that vanish at the exact map
            need one: without it their weight would grow without end.

    Raises:
        ValueError: If a number is out of range.
    """

    waves: int = 8
    offset: float = 0.0

    def __post_init__(self) -> None:
        require_whole("waves of a learned weighting", self.waves)
        if self.waves < 1 or not 0.0 <= self.offset < math.inf:
            raise ValueError(
                "learned weighting needs waves >= 1 and a finite offset >= 0, "
                f"got {self.waves} and {self.offset}"
            )

    def companion(self, flow_map: FlowMap) -> nn.Module:
        """The part that is trained; it is the same for every network."""
        del flow_map
        return LogError(waves=self.waves)

    def __call__(
        self,
        log_error: nn.Module,
        error: Float[Tensor, " b"],
        s: Float[Tensor, " b"],
        t: Float[Tensor, " b"],
    ) -> Float[Tensor, " b"]:
        """Weighted errors, which may be negative; gradients reach the companion."""
        w: Tensor = log_error(s, t)
        return (-w).exp() * (error + self.offset) + w
