"""A step of training with a derivative inside, made of noise, to be timed and compared."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Self, final

import torch
from torch import Tensor

from ...methods.core.calculus import (
    AbstractDerivative,
    CentralDifference,
    ForwardMode,
    derivative_along,
)
from ...methods.core.condition import Condition
from ...methods.core.flow_map import FlowMap
from ...methods.core.precision import Precision
from ...methods.core.rng import Rng
from .stand_in import shaken

_TINY: Final = 1e-5
"""Length of a difference in float64 that is as good as exact."""


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class DerivativeProbe:
    """Rows of a batch, those off the diagonal first, and a network to differentiate there.

    Attributes:
        net: The network.
        x: States at the start times.
        v: Velocities, along which the derivative is taken and which the step learns.
        s: Start times.
        t: End times.
        condition: Condition of each row.
        off: How many rows lie off the diagonal.
        precision: Arithmetic of the network.
    """

    net: FlowMap
    x: Tensor
    v: Tensor
    s: Tensor
    t: Tensor
    condition: Condition | None
    off: int
    precision: Precision

    @classmethod
    def of(
        cls,
        net: FlowMap,
        shape: tuple[int, ...],
        classes: int,
        *,
        rows: int,
        off: int,
        precision: Precision,
    ) -> Self:
        """Normal numbers and a copy of a network, whose weights are shaken.

        Args:
            net: The network.
            shape: Shape of one datum.
            classes: Number of classes, 0 for none.
            rows: Rows of a step.
            off: How many of them lie off the diagonal.
            precision: Arithmetic of the network.

        Returns:
            The probe, on the device of the network.
        """
        device, dtype = next(net.parameters()).device, precision.dtype
        rng = Rng.seeded(0)
        s = 0.9 * rng.uniform(rows, dtype=dtype)
        gap = torch.where(torch.arange(rows) < off, 0.1, 0.0).to(dtype)
        label = Condition(label=rng.integers(rows, below=classes)) if classes else None
        return cls(
            net=shaken(copy.deepcopy(net).to(dtype).eval(), seed=0),
            x=rng.normal(rows, *shape, dtype=dtype).to(device),
            v=rng.normal(rows, *shape, dtype=dtype).to(device),
            s=s.to(device),
            t=(s + gap).to(device),
            condition=None if label is None else label.to(device),
            off=off,
            precision=precision,
        )

    def derivative(self, way: AbstractDerivative) -> Tensor:
        """The derivative on the rows off the diagonal where the value is known, as in a step."""
        at, _ = self._rows(slice(self.off))
        with torch.no_grad(), self.precision.autocast(self.x.device.type):
            value = self.net(*at, self._some(slice(self.off)))
            return self._along(way, self.net, value=value)

    def exact(self) -> Tensor:
        """The derivative in float64, by forward mode or else by a tiny difference."""
        net = copy.deepcopy(self.net).double()
        try:
            return self._along(ForwardMode(), net)
        except RuntimeError:
            return self._along(CentralDifference(step=_TINY), net)

    def whole(self) -> Tensor:
        """The derivative on the rows off the diagonal, from that of the whole batch."""
        _, derivative = derivative_along(self._network(slice(None)), *self._rows(slice(None)))
        return derivative[: self.off].detach()

    def plain_step(self) -> None:
        """A step without a derivative."""
        self._learn(lambda u: self.v)

    def step(self, way: AbstractDerivative) -> None:
        """A step with a derivative on the rows off the diagonal."""

        def target(u: Tensor) -> Tensor:
            aim = self.v.clone()
            aim[: self.off] += self._along(way, self.net, value=u[: self.off])
            return aim

        self._learn(target)

    def whole_step(self) -> None:
        """A step with a derivative on all rows, whose graph is kept as long as the value's."""
        self.net.zero_grad(set_to_none=True)
        with self.precision.autocast(self.x.device.type):
            u, derivative = derivative_along(self._network(slice(None)), *self._rows(slice(None)))
            (u - self.v - derivative.detach()).square().mean().backward()

    def cleared(self, step: Callable[[], None]) -> Callable[[], None]:
        """A step that finds no gradients of an earlier one."""
        self.net.zero_grad(set_to_none=True)
        return step

    def _learn(self, target: Callable[[Tensor], Tensor]) -> None:
        self.net.zero_grad(set_to_none=True)
        with self.precision.autocast(self.x.device.type):
            u = self.net(self.x, self.s, self.t, self.condition)
            (u - target(u)).square().mean().backward()

    def _along(
        self, way: AbstractDerivative, net: FlowMap, *, value: Tensor | None = None
    ) -> Tensor:
        dtype = next(net.parameters()).dtype
        at, tangent = self._rows(slice(self.off))
        condition = self._some(slice(self.off))
        return way.along(
            lambda x, s, t: net(x, s, t, condition),
            [part.to(dtype) for part in at],
            [part.to(dtype) for part in tangent],
            value=value,
        )

    def _network(self, rows: slice) -> Callable[..., Tensor]:
        condition = self._some(rows)
        return lambda x, s, t: self.net(x, s, t, condition)

    def _rows(self, rows: slice) -> tuple[list[Tensor], list[Tensor]]:
        """Points and tangents of some rows."""
        x, v, s, t = (part[rows] for part in (self.x, self.v, self.s, self.t))
        return [x, s, t], [v, torch.ones_like(s), torch.zeros_like(t)]

    def _some(self, rows: slice) -> Condition | None:
        return None if self.condition is None else self.condition[rows]
