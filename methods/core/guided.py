"""Guided velocities: classifier-free guidance as a flow map, for what a teacher makes."""

from typing import final

from jaxtyping import Float
from torch import Tensor

from .condition import Condition
from .flow_map import Domain, DomainKind, FlowMap


@final
class GuidedVelocity(FlowMap):
    """A conditional velocity, pushed away from the unconditional one by a scale.

        scale v(x, t | condition) + (1 - scale) v(x, t)

    Scale 1 is the condition alone, bit for bit and in one pass; 0 is no condition.

    Reference: Ho and Salimans 2022, arXiv:2207.12598v1; of velocities Liu et al. 2023,
        arXiv:2309.06380v2.
    Convention: the scale of Ho and Salimans is w = scale - 1.
    Cost: two evaluations of the net, one at scale 1.

    Args:
        net: A flow map of which only the diagonal is used, trained with some rows unconditioned.
        scale: The guidance scale, at least 0.

    Raises:
        ValueError: If the scale is negative.
    """

    def __init__(self, net: FlowMap, *, scale: float) -> None:
        super().__init__(
            domain=Domain(kind=DomainKind.DIAGONAL, t_lo=net.domain.t_lo, t_hi=net.domain.t_hi)
        )
        if scale < 0.0:
            raise ValueError(f"guidance needs a scale of at least 0, got {scale}")
        self.net = net
        self.scale = scale

    def forward(
        self,
        x: Float[Tensor, "b *d"],
        s: Float[Tensor, "b"],
        t: Float[Tensor, "b"],
        condition: Condition | None = None,
    ) -> Float[Tensor, "b *d"]:
        """Guided velocity at the start time; the end time is ignored by definition.

        Args:
            x: States at s.
            s: Times.
            t: Not used.
            condition: Condition of each row.

        Raises:
            ValueError: If guidance has no condition to go by.
        """
        del t
        if self.scale == 1.0:
            return self.net.velocity(x, s, condition)
        if condition is None:
            raise ValueError(f"guidance of scale {self.scale:g} needs a condition, got none")
        v = self.net.velocity(x, s, condition)
        return self.scale * v + (1.0 - self.scale) * self.net.velocity(x, s, condition.null())
