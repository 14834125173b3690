"""Flow maps made of other maps: some write down what they are asked, some mind their condition."""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from onestep.methods.core.condition import NULL_LABEL, Condition
from onestep.methods.core.flow_map import Domain, FlowMap
from onestep.methods.core.shape import rows_like


@final
@dataclass(frozen=True, kw_only=True)
class Call:
    """One evaluation of a map.

    Attributes:
        x: States.
        s: Start times.
        t: End times.
        label: Labels, or None.
        scale: Guidance scales, or None.
    """

    x: Tensor
    s: Tensor
    t: Tensor
    label: Tensor | None
    scale: Tensor | None


@final
class ObservedMap(FlowMap):
    """Another map, whose evaluations are kept in order.

    Attributes:
        calls: The evaluations so far.
    """

    calls: list[Call]

    def __init__(self, flow_map: FlowMap, *, domain: Domain | None = None) -> None:
        super().__init__(domain=flow_map.domain if domain is None else domain)
        self.flow_map = flow_map
        self.calls = []

    def forward(
        self,
        x: Float[Tensor, " b *d"],
        s: Float[Tensor, " b"],
        t: Float[Tensor, " b"],
        condition: Condition | None = None,
    ) -> Float[Tensor, " b *d"]:
        told = Condition() if condition is None else condition
        self.calls.append(
            Call(x=x.detach(), s=s.detach(), t=t.detach(), label=told.label, scale=told.guidance)
        )
        return self.flow_map(x, s, t, condition)

    @property
    def rows(self) -> list[int]:
        """Rows of each evaluation."""
        return [len(call.x) for call in self.calls]


@final
class TwoMaps(FlowMap):
    """One map where there is a label, another where there is none."""

    def __init__(self, labelled: FlowMap, unlabelled: FlowMap) -> None:
        super().__init__(domain=Domain())
        self.labelled, self.unlabelled = labelled, unlabelled

    def forward(
        self,
        x: Float[Tensor, " b *d"],
        s: Float[Tensor, " b"],
        t: Float[Tensor, " b"],
        condition: Condition | None = None,
    ) -> Float[Tensor, " b *d"]:
        assert condition is not None
        assert condition.label is not None
        is_null = rows_like(condition.label == NULL_LABEL, x)
        return torch.where(is_null, self.unlabelled(x, s, t), self.labelled(x, s, t))


@final
class AffineMap(FlowMap):
    """u(x, s, t) = A x + b at all times, with A and b as its parameters."""

    def __init__(self, flow_map: FlowMap, *, size: int) -> None:
        super().__init__(domain=flow_map.domain)
        self.matrix = torch.nn.Parameter(torch.zeros(size, size, dtype=torch.float64))
        self.offset = torch.nn.Parameter(torch.zeros(size, dtype=torch.float64))

    def forward(
        self,
        x: Float[Tensor, " b *d"],
        s: Float[Tensor, " b"],
        t: Float[Tensor, " b"],
        condition: Condition | None = None,
    ) -> Float[Tensor, " b *d"]:
        del s, t, condition
        return x @ self.matrix.T + self.offset


@final
class ScaledMap(FlowMap):
    """The exact map of a velocity that is guided by the scale of each row.

    Args:
        good: The better map, of a Gaussian; such maps are affine in the mean.
        poor: The worse one, of the same width.
    """

    def __init__(self, good: FlowMap, poor: FlowMap) -> None:
        super().__init__(domain=good.domain)
        self.good, self.poor = good, poor

    def forward(
        self,
        x: Float[Tensor, " b *d"],
        s: Float[Tensor, " b"],
        t: Float[Tensor, " b"],
        condition: Condition | None = None,
    ) -> Float[Tensor, " b *d"]:
        assert condition is not None
        assert condition.guidance is not None
        good, poor = self.good(x, s, t), self.poor(x, s, t)
        mixed: Tensor = poor + rows_like(condition.guidance, x) * (good - poor)
        return mixed
