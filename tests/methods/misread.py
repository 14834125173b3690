"""Networks misread for targets: negative controls of methods that teach a network by itself."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from onestep.methods.core.condition import Condition
from onestep.methods.core.coupling import AbstractCoupling
from onestep.methods.core.flow_map import Domain, FlowMap
from onestep.methods.core.method import AbstractMethod, Needs
from onestep.methods.core.record import Batch, Loss, Moment, Nets
from onestep.methods.core.shape import rows_like

Misreading = Callable[[Tensor, Tensor, Tensor], Tensor]
"""What is read in place of an average velocity u from s to t."""


def doubled(u: Tensor, s: Tensor, t: Tensor) -> Tensor:
    """Every velocity twice as fast."""
    del s, t
    return 2.0 * u


def doubled_on_the_diagonal(u: Tensor, s: Tensor, t: Tensor) -> Tensor:
    """Instantaneous velocities twice as fast, average ones as they are."""
    return torch.where(rows_like(s == t, u), 2.0 * u, u)


@final
class MisreadMap(FlowMap):
    """Another map, whose values are right where they have a graph alone."""

    def __init__(self, flow_map: FlowMap, misreading: Misreading) -> None:
        super().__init__(domain=flow_map.domain)
        self.flow_map = flow_map
        self.misreading = misreading

    def forward(
        self,
        x: Float[Tensor, " b *d"],
        s: Float[Tensor, " b"],
        t: Float[Tensor, " b"],
        condition: Condition | None = None,
    ) -> Float[Tensor, " b *d"]:
        u: Tensor = self.flow_map(x, s, t, condition)
        return u if torch.is_grad_enabled() else self.misreading(u, s, t)


@final
@dataclass(frozen=True, kw_only=True)
class Misread(AbstractMethod):
    """A method whose targets are wrong, because it misreads the networks that it takes them from.

    Attributes:
        method: The method.
        misreading: What it reads.
    """

    method: AbstractMethod
    misreading: Misreading = doubled

    @property
    def coupling(self) -> AbstractCoupling:
        return self.method.coupling

    @property
    def domain(self) -> Domain:
        return self.method.domain

    @property
    def needs(self) -> Needs:
        return self.method.needs

    def loss(self, nets: Nets, batch: Batch, now: Moment) -> Loss:
        wrong = replace(
            nets,
            online=MisreadMap(nets.online, self.misreading),
            target=None if nets.target is None else MisreadMap(nets.target, self.misreading),
            frozen={name: MisreadMap(m, self.misreading) for name, m in nets.frozen.items()},
        )
        return self.method.loss(wrong, batch, now)
