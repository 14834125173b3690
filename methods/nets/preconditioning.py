"""A network around which the exact average velocity of Gaussian data is laid.

Shape suffixes: B rows.
"""

import math
from typing import Protocol, final

from jaxtyping import Float
from torch import Tensor

from ..core.condition import Condition
from ..core.flow_map import Domain, FlowMap
from ..core.shape import rows_like


class NetFactory(Protocol):
    """Builds a network for data of a shape: a network's class with its own fields filled in."""

    def __call__(self, *, shape: tuple[int, ...], classes: int, domain: Domain) -> FlowMap:
        """The network."""
        ...


@final
class Preconditioned(FlowMap):
    """A network F that learns what the average velocity of N(0, sigma_data^2 I) data leaves over.

        u(x, s, t) = c(s, t) x + sigma_data / S_s F(x / S_s, s, t)
        S_t = sqrt((1 - t)^2 + sigma_data^2 t^2)
        c(s, t) = ((1 + sigma_data^2)(s + t) - 2) / (S_s (S_s + S_t))

    S_t is the standard deviation of a coordinate at time t, so F sees unit variance, and c x is
    the exact average velocity of centred Gaussian data: with F = 0 the map is exact for them on
    the whole triangle, and a new network starts there. On the diagonal the factors are those of
    EDM, by which a target of F has unit variance. The output factor does not depend on t, and at
    t = 1 the jump carries F by sigma_data (1 - s) / S_s, which is EDM's output factor too.
    After training on the diagonal alone F does not depend on t, while c follows t as it must.

    Reference: Karras et al. 2022, arXiv:2206.00364v2, Section 5 and Table 1.
    Convention: theirs has the noise level sigma = (1 - t) / t and the state x / t.
    Differs from the paper: F takes the times themselves and not log(sigma) / 4, which is infinite
        at both ends of the path; ``EDMUNet`` computes that from them.

    Args:
        shape: Shape of a datum.
        domain: The (s, t) on which the map is trained.
        net: Builds F.
        classes: Classes of the labels, 0 for an unconditional network.
        sigma_data: Standard deviation of a coordinate of the data, positive.

    Raises:
        ValueError: If the standard deviation is not positive and finite.
    """

    def __init__(
        self,
        *,
        shape: tuple[int, ...],
        domain: Domain,
        net: NetFactory,
        classes: int = 0,
        sigma_data: float = 0.5,
    ) -> None:
        super().__init__(domain=domain)
        if not 0.0 < sigma_data < math.inf:
            raise ValueError(f"sigma_data must be positive and finite, got {sigma_data}")
        self.sigma_data = sigma_data
        self.net = net(shape=shape, classes=classes, domain=domain)

    def forward(
        self,
        x: Float[Tensor, " b *d"],
        s: Float[Tensor, " b"],
        t: Float[Tensor, " b"],
        condition: Condition | None = None,
    ) -> Float[Tensor, " b *d"]:
        """Average velocity over [s, t] of the trajectory that is at x at time s."""
        std_s_B, std_t_B = self._std(s), self._std(t)
        skip_B = ((1.0 + self.sigma_data**2) * (s + t) - 2.0) / (std_s_B * (std_s_B + std_t_B))
        residual: Tensor = self.net(x / rows_like(std_s_B, x), s, t, condition)
        return rows_like(skip_B, x) * x + rows_like(self.sigma_data / std_s_B, x) * residual

    def _std(self, t_B: Tensor) -> Tensor:
        return ((1.0 - t_B).square() + (self.sigma_data * t_B).square()).sqrt()
