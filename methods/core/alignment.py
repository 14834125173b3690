"""Alignments: which way a network has to change so that its jumps follow a known velocity.

Each is a line that an exact flow map obeys, as the change of u that it asks for, held constant: the
network is moved by it, and no derivative is differentiated through.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from .calculus import AbstractDerivative, Function
from .coverage import BOTH_MOVE, ENDS_MOVE, STARTS_MOVE
from .flow_map import DomainKind
from .shape import rows_like

Field = Callable[[Tensor, Tensor], Tensor]
"""A velocity, of states and times."""
Jumped = tuple[Float[Tensor, " b *d"], Float[Tensor, " b"], Float[Tensor, " b"]]
"""States at s, start times s and end times t."""


class AbstractAlignment(ABC):
    """The change of u that a line asks for: velocity - u + bend, zero for an exact map."""

    @property
    def kinds(self) -> frozenset[DomainKind]:
        """Kinds of domain that it can train; those of both times unless an alignment says more."""
        return BOTH_MOVE

    @abstractmethod
    def velocity(
        self, field: Field, at: Jumped, *, u: Float[Tensor, " b *d"]
    ) -> Float[Tensor, " b *d"]:
        """The known velocity where the line wants it.

        Args:
            field: The velocity, without a graph.
            at: States, start and end times.
            u: The average velocity there, without a graph.
        """

    @abstractmethod
    def bend(
        self,
        average: Function,
        v: Float[Tensor, " b *d"],
        at: Jumped,
        *,
        u: Float[Tensor, " b *d"],
        derivative: AbstractDerivative,
    ) -> Float[Tensor, " b *d"]:
        """By how much an average velocity differs from that velocity, without a graph.

        Args:
            average: The average velocity u of (x, s, t).
            v: What ``velocity`` gave.
            at: States, start and end times.
            u: The average velocity there.
            derivative: How the derivative is taken.
        """


@final
@dataclass(frozen=True, kw_only=True)
class EulerianAlignment(AbstractAlignment):
    """EMD: the end of a jump stays where it is while its start moves with the velocity b.

    b(x, s) - u + (t - s) (b . grad_x u + d_s u)
    """

    @property
    def kinds(self) -> frozenset[DomainKind]:
        """Those in which the start of a jump may move."""
        return STARTS_MOVE

    def velocity(
        self, field: Field, at: Jumped, *, u: Float[Tensor, " b *d"]
    ) -> Float[Tensor, " b *d"]:
        """The velocity at the start."""
        del u
        x, s, _ = at
        return field(x, s)

    def bend(
        self,
        average: Function,
        v: Float[Tensor, " b *d"],
        at: Jumped,
        *,
        u: Float[Tensor, " b *d"],
        derivative: AbstractDerivative,
    ) -> Float[Tensor, " b *d"]:
        """The derivative along the start's motion, times the length."""
        x, s, t = at
        du_ds = derivative.along(
            lambda x, s: average(x, s, t), (x, s), (v, torch.ones_like(s)), value=u
        )
        return rows_like(t - s, x) * du_ds


@final
@dataclass(frozen=True, kw_only=True)
class LagrangianAlignment(AbstractAlignment):
    """LMD: the end of a jump moves with the velocity b there.

    b(X(s, t)(x), t) - u - (t - s) d_t u
    """

    @property
    def kinds(self) -> frozenset[DomainKind]:
        """Those in which the end of a jump may move."""
        return ENDS_MOVE

    def velocity(
        self, field: Field, at: Jumped, *, u: Float[Tensor, " b *d"]
    ) -> Float[Tensor, " b *d"]:
        """The velocity at the end that the network jumps to."""
        x, s, t = at
        return field(x + rows_like(t - s, x) * u, t)

    def bend(
        self,
        average: Function,
        v: Float[Tensor, " b *d"],
        at: Jumped,
        *,
        u: Float[Tensor, " b *d"],
        derivative: AbstractDerivative,
    ) -> Float[Tensor, " b *d"]:
        """The derivative in the end time, times the length, with its sign."""
        del v
        x, s, t = at
        du_dt = derivative.along(
            lambda end: average(x, s, end), (t,), (torch.ones_like(t),), value=u
        )
        return -rows_like(t - s, x) * du_dt
