"""A loss weight that is learned beside the network: how well each (s, t) can be fitted.

Shape suffixes: B rows, F features.
"""

from dataclasses import dataclass
from typing import Final, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..core.flow_map import FlowMap
from .affine import Linear
from .time_embedding import PeriodicFeatures

_MAX_CYCLES: Final = 4.0


@final
class LossWeight(nn.Module):
    """w(s, t), a linear map of periodic features of s and t - s, zero at the start."""

    def __init__(self) -> None:
        super().__init__()
        self.features = PeriodicFeatures(max_cycles=_MAX_CYCLES)
        self.linear = Linear(2 * PeriodicFeatures.size, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, s: Float[Tensor, "b"], t: Float[Tensor, "b"]) -> Float[Tensor, "b"]:
        """Logarithm of the error that is expected at each (s, t)."""
        with torch.autocast(s.device.type, enabled=False):
            features_BF = torch.cat([self.features(s), self.features(t - s)], dim=1)
            w_B: Tensor = self.linear(features_BF.to(self.linear.weight.dtype))[:, 0]
            return w_B


@final
@dataclass(frozen=True, kw_only=True)
class LearnedWeighting:
    """exp(-w(s, t)) (error + offset) + w(s, t): least where exp(w) is the mean error plus offset.

    Reference: Kendall et al. 2017, arXiv:1705.07115v3, Eq. (7); Karras et al. 2023 (EDM2),
        arXiv:2312.02696v2, appendix B.2.
    Differs from the paper: the offset, without which the weight of errors that vanish at the exact
        map would grow without end.

    Attributes:
        offset: Least error that is told from none, above 0.

    Raises:
        ValueError: If the offset is not positive.
    """

    offset: float = 0.01

    def __post_init__(self) -> None:
        if self.offset <= 0.0:
            raise ValueError(f"learned weighting needs an offset above 0, got {self.offset}")

    def companion(self, flow_map: FlowMap) -> nn.Module:
        """The part that is trained beside the network."""
        del flow_map
        return LossWeight()

    def __call__(
        self,
        net: nn.Module,
        error: Float[Tensor, "b"],
        s: Float[Tensor, "b"],
        t: Float[Tensor, "b"],
    ) -> Float[Tensor, "b"]:
        """Weighted errors.

        Args:
            net: The trained part.
            error: Errors.
            s: Start times.
            t: End times.

        Returns:
            One number for each row, which may be negative.
        """
        w: Tensor = net(s, t)
        return (-w).exp() * (error + self.offset) + w
