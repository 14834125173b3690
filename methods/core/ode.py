"""ODE samplers: the velocity of a map, integrated from noise to data."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, final

import torch
import torchdiffeq
from jaxtyping import Float
from torch import Tensor

from .condition import Condition
from .coordinate import AbstractCoordinate, TimeCoordinate
from .flow_map import Domain, FlowMap
from .grid import AbstractGrid, UniformGrid
from .sampler import (
    AbstractSampler,
    finish,
    finishing,
    require_linear,
    require_velocity,
    times_like,
)


class Tableau(NamedTuple):
    """An explicit Runge-Kutta rule: where its stages lie and how they are weighted."""

    nodes: tuple[float, ...]
    stages: tuple[tuple[float, ...], ...]
    weights: tuple[float, ...]
    order: int
    """Power of the step with which the error falls."""


EULER = Tableau(nodes=(0.0,), stages=((),), weights=(1.0,), order=1)
HEUN = Tableau(nodes=(0.0, 1.0), stages=((), (1.0,)), weights=(0.5, 0.5), order=2)
MIDPOINT = Tableau(nodes=(0.0, 0.5), stages=((), (0.5,)), weights=(0.0, 1.0), order=2)
RK4 = Tableau(
    nodes=(0.0, 0.5, 0.5, 1.0),
    stages=((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)),
    weights=(1 / 6, 1 / 3, 1 / 3, 1 / 6),
    order=4,
)


@dataclass(frozen=True, kw_only=True)
class AbstractRungeKutta(AbstractSampler, ABC):
    """A Runge-Kutta rule with fixed steps.

    Attributes:
        grid: Where the steps begin and end.
        coordinate: State and clock in which the steps are straight.
    """

    grid: AbstractGrid = UniformGrid(steps=50)
    coordinate: AbstractCoordinate = TimeCoordinate()

    @property
    @abstractmethod
    def tableau(self) -> Tableau:
        """The rule."""

    @property
    def tableaus(self) -> tuple[Tableau, ...]:
        """The rule of each step."""
        return (self.tableau,) * self.grid.steps

    @property
    @final
    def draws(self) -> int:
        """Independent draws of noise that one sample takes."""
        return 1

    @final
    def evaluations(self, domain: Domain) -> int:
        """Evaluations of the map for one sample: the rules', and the denoising if there is one."""
        return sum(len(rule.nodes) for rule in self.tableaus) + finishing(domain)

    @final
    def check(self, domain: Domain) -> None:
        """Refuse a map that is no velocity.

        Args:
            domain: The map's domain.

        Raises:
            ValueError: If the map was not trained on the diagonal, begins at t = 0 where the
                coordinate is infinite, or is of another path than the coordinate.
        """
        require_velocity(type(self).__name__, domain)
        if not isinstance(self.coordinate, TimeCoordinate):
            require_linear(type(self.coordinate).__name__, domain)
        if domain.t_lo == 0.0 and not self.coordinate.reaches_noise:
            raise ValueError(
                f"{type(self.coordinate).__name__} needs a map whose range begins above t = 0, "
                "got one that begins at 0"
            )

    @final
    def _walk(
        self, flow_map: FlowMap, noise: Float[Tensor, "draws b *d"], condition: Condition | None
    ) -> Float[Tensor, " b *d"]:
        domain = flow_map.domain
        x = noise[0] * (1.0 - domain.t_lo)
        times = self.grid.times(domain.t_lo, domain.t_hi)
        for rule, (s, t) in zip(self.tableaus, pairwise(times), strict=True):
            x = self._step(flow_map, x, s, t, condition, rule=rule)
        return finish(flow_map, x, condition)

    @final
    def invert(
        self, flow_map: FlowMap, x1: Float[Tensor, " b *d"], condition: Condition | None = None
    ) -> Float[Tensor, " b *d"]:
        """The noise from which the flow reaches these data: the same steps, backwards.

        Args:
            flow_map: A velocity whose range is all of [0, 1].
            x1: Data.
            condition: Condition of each row, or None.

        Returns:
            The noise, up to the rule's error.

        Raises:
            ValueError: If the map is no velocity, or its range ends before noise or data.
        """
        self.check(flow_map.domain)
        t_lo, t_hi = flow_map.domain.t_lo, flow_map.domain.t_hi
        if (t_lo, t_hi) != (0.0, 1.0):
            raise ValueError(f"inversion needs a map on [0, 1], got one on [{t_lo:g}, {t_hi:g}]")
        x = x1
        with torch.no_grad():
            back = pairwise(reversed(self.grid.times(t_lo, t_hi)))
            for rule, (s, t) in zip(reversed(self.tableaus), back, strict=True):
                x = self._step(flow_map, x, s, t, condition, rule=rule)
        return x

    def _step(
        self,
        flow_map: FlowMap,
        x: Tensor,
        s: float,
        t: float,
        condition: Condition | None,
        *,
        rule: Tableau,
    ) -> Tensor:
        frame = self.coordinate
        begin, length = frame.clock(s), frame.clock(t) - frame.clock(s)
        state, slopes = x * frame.scale(s), list[Tensor]()
        for node, stage in zip(rule.nodes, rule.stages, strict=True):
            time = frame.time(begin + node * length)
            y = state
            for share, slope in zip(stage, slopes, strict=True):
                y = y + (length * share) * slope
            point = y / frame.scale(time)
            v = flow_map.velocity(point, times_like(time, point), condition)
            slopes.append(frame.slope(point, time, v))
        for share, slope in zip(rule.weights, slopes, strict=True):
            state = state + (length * share) * slope
        return state / frame.scale(t)


@final
@dataclass(frozen=True, kw_only=True)
class Euler(AbstractRungeKutta):
    """One evaluation a step, first order."""

    @property
    def tableau(self) -> Tableau:
        """The rule."""
        return EULER


@final
@dataclass(frozen=True, kw_only=True)
class Heun(AbstractRungeKutta):
    """Two evaluations a step, at its ends; second order."""

    @property
    def tableau(self) -> Tableau:
        """The rule."""
        return HEUN


@final
@dataclass(frozen=True, kw_only=True)
class HeunThenEuler(AbstractRungeKutta):
    """Heun's steps and a last one of Euler's, which spends an odd number of evaluations.

    Reference: Karras et al. 2022, arXiv:2206.00364v2, Alg. 1, whose last step is Euler's as well.
    """

    @property
    def tableau(self) -> Tableau:
        """The rule of all steps but the last."""
        return HEUN

    @property
    def tableaus(self) -> tuple[Tableau, ...]:
        """The rule of each step."""
        return (HEUN,) * (self.grid.steps - 1) + (EULER,)


@final
@dataclass(frozen=True, kw_only=True)
class Midpoint(AbstractRungeKutta):
    """Two evaluations a step, at its start and middle; second order."""

    @property
    def tableau(self) -> Tableau:
        """The rule."""
        return MIDPOINT


@final
@dataclass(frozen=True, kw_only=True)
class RungeKutta4(AbstractRungeKutta):
    """Four evaluations a step; fourth order."""

    @property
    def tableau(self) -> Tableau:
        """The rule."""
        return RK4


@final
@dataclass(frozen=True, kw_only=True)
class Dopri5(AbstractSampler):
    """Dormand and Prince's rule with adaptive steps, from torchdiffeq.

    The step depends on the whole batch, so that a sample's last digits depend on its company.

    Attributes:
        rtol: Relative tolerance, above 0.
        atol: Absolute tolerance, above 0.

    Raises:
        ValueError: If a tolerance is not positive.
    """

    rtol: float = 1e-5
    atol: float = 1e-5

    def __post_init__(self) -> None:
        if not (0.0 < self.rtol < math.inf and 0.0 < self.atol < math.inf):
            raise ValueError(
                f"dopri5 needs finite tolerances above 0, got {self.rtol} and {self.atol}"
            )

    @property
    def draws(self) -> int:
        """Independent draws of noise that one sample takes."""
        return 1

    def evaluations(self, domain: Domain) -> None:
        """They depend on the map, whatever its domain."""
        del domain

    def check(self, domain: Domain) -> None:
        """Refuse a map that is no velocity.

        Args:
            domain: The map's domain.

        Raises:
            ValueError: If the map was not trained on the diagonal.
        """
        require_velocity("Dopri5", domain)

    def _walk(
        self, flow_map: FlowMap, noise: Float[Tensor, "draws b *d"], condition: Condition | None
    ) -> Float[Tensor, " b *d"]:
        domain = flow_map.domain
        x = noise[0] * (1.0 - domain.t_lo)

        def velocity(t: Tensor, y: Tensor) -> Tensor:
            return flow_map.velocity(y, t.to(y.dtype).expand(len(y)), condition)

        span = torch.tensor([domain.t_lo, domain.t_hi], dtype=x.dtype, device=x.device)
        path = torchdiffeq.odeint(
            velocity, x, span, rtol=self.rtol, atol=self.atol, method="dopri5"
        )
        return finish(flow_map, path[-1], condition)
