"""Rules: the lines that an exact flow map obeys, held against a constant side.

Lagrange, Euler and the semigroup, each as the residual that one network leaves when another gives
the side without a gradient.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from .calculus import ForwardMode, derivative_along
from .condition import Condition
from .coverage import BOTH_MOVE
from .flow_map import DomainKind, FlowMap
from .motion import end_motion
from .record import Moment
from .shape import rows_like
from .tiling import AbstractTiling, EqualTiles, tiled_velocity


class AbstractRule(ABC):
    """A line that an exact flow map obeys, as the residual of one that does not."""

    @property
    def kinds(self) -> frozenset[DomainKind]:
        """Kinds of domain that it can be held on: no grid of times unless a rule says so."""
        return BOTH_MOVE

    @abstractmethod
    def residual(
        self,
        online: FlowMap,
        teacher: FlowMap,
        x: Float[Tensor, " b *d"],
        s: Float[Tensor, " b"],
        t: Float[Tensor, " b"],
        condition: Condition | None,
        now: Moment,
    ) -> Float[Tensor, " b *d"]:
        """What is left of the line, zero for an exact map.

        Args:
            online: The map in training.
            teacher: The map that gives the constant side, without a graph.
            x: States at s.
            s: Start times.
            t: End times.
            condition: Condition of each row.
            now: The moment.
        """


@final
@dataclass(frozen=True, kw_only=True)
class Lagrangian(AbstractRule):
    """LSD: the end of a jump moves with the velocity there.

    u + (t - s) d_t u = sg v(X(s, t)(x), t)
    """

    def residual(
        self,
        online: FlowMap,
        teacher: FlowMap,
        x: Float[Tensor, " b *d"],
        s: Float[Tensor, " b"],
        t: Float[Tensor, " b"],
        condition: Condition | None,
        now: Moment,
    ) -> Float[Tensor, " b *d"]:
        """What is left of the line, zero for an exact map."""
        del now
        end, rate = end_motion(online, x, s, t, condition)
        with torch.no_grad():
            velocity = teacher.velocity(end.detach(), t, condition)
        return rate - velocity


@final
@dataclass(frozen=True, kw_only=True)
class Eulerian(AbstractRule):
    """ESD: the end of a jump stays where it is while its start moves along the flow.

    (t - s) d_s u - u + sg(v + (t - s) v . grad_x u) = 0   with v = v(x, s)

    It is MeanFlow's residual with the map's own velocity and the other sign, but the gradient
    passes through d_s u as well.
    """

    def residual(
        self,
        online: FlowMap,
        teacher: FlowMap,
        x: Float[Tensor, " b *d"],
        s: Float[Tensor, " b"],
        t: Float[Tensor, " b"],
        condition: Condition | None,
        now: Moment,
    ) -> Float[Tensor, " b *d"]:
        """What is left of the line, zero for an exact map."""
        del now
        with torch.no_grad():
            velocity = teacher.velocity(x, s, condition)
            velocity = velocity.to(x.dtype)
        transport = ForwardMode().along(lambda x: online(x, s, t, condition), (x,), (velocity,))
        u, du_ds = derivative_along(
            lambda start: online(x, start, t, condition), (s,), (torch.ones_like(s),)
        )
        return rows_like(t - s, x) * (du_ds + transport) + velocity - u


@final
@dataclass(frozen=True, kw_only=True)
class Progressive(AbstractRule):
    """PSD: a jump is worth the jumps that it is cut into.

    u = sg sum_i w_i u_i   over the tiles of the jump from s to t

    Two halves are PSD-M, and a continuous Shortcut. A random split is PSD-U, which is
    SplitMeanFlow.

    Attributes:
        tiling: How jumps are cut.
    """

    tiling: AbstractTiling = EqualTiles(count=2)

    @property
    def kinds(self) -> frozenset[DomainKind]:
        """A dyadic grid too, where the parts of a jump are of the grid."""
        return BOTH_MOVE | {DomainKind.GRID} if self.tiling.is_dyadic else BOTH_MOVE

    def residual(
        self,
        online: FlowMap,
        teacher: FlowMap,
        x: Float[Tensor, " b *d"],
        s: Float[Tensor, " b"],
        t: Float[Tensor, " b"],
        condition: Condition | None,
        now: Moment,
    ) -> Float[Tensor, " b *d"]:
        """What is left of the line, zero for an exact map."""
        tiles = self.tiling.draw(len(x), now, dtype=s.dtype)
        with torch.no_grad():
            target = tiled_velocity(teacher, x, s, t, condition, tiles=tiles)
        u: Tensor = online(x, s, t, condition)
        return u - target
