"""One step of a teacher's ODE from a time of its own in each row to another."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

from jaxtyping import Float
from torch import Tensor

from .condition import Condition
from .flow_map import FlowMap
from .shape import rows_like


class AbstractSolverStep(ABC):
    """A rule that takes each row of a batch from its start time to its end time."""

    @abstractmethod
    def __call__(
        self,
        teacher: FlowMap,
        x: Float[Tensor, " b *d"],
        s: Float[Tensor, " b"],
        t: Float[Tensor, " b"],
        condition: Condition | None,
    ) -> Float[Tensor, " b *d"]:
        """States at t of the trajectories of the teacher's velocity that are at x at time s."""


@final
@dataclass(frozen=True, kw_only=True)
class EulerStep(AbstractSolverStep):
    """One evaluation, first order; the same in time and in noise level."""

    def __call__(
        self,
        teacher: FlowMap,
        x: Float[Tensor, " b *d"],
        s: Float[Tensor, " b"],
        t: Float[Tensor, " b"],
        condition: Condition | None,
    ) -> Float[Tensor, " b *d"]:
        """States at t of the trajectories of the teacher's velocity that are at x at time s."""
        return x + rows_like(t - s, x) * teacher.velocity(x, s, condition)


@final
@dataclass(frozen=True, kw_only=True)
class HeunStep(AbstractSolverStep):
    """Two evaluations, at both ends of a step that is straight in time; second order."""

    def __call__(
        self,
        teacher: FlowMap,
        x: Float[Tensor, " b *d"],
        s: Float[Tensor, " b"],
        t: Float[Tensor, " b"],
        condition: Condition | None,
    ) -> Float[Tensor, " b *d"]:
        """States at t of the trajectories of the teacher's velocity that are at x at time s."""
        gap = rows_like(t - s, x)
        first = teacher.velocity(x, s, condition)
        second = teacher.velocity(x + gap * first, t, condition)
        return x + gap * (0.5 * (first + second))


@final
@dataclass(frozen=True, kw_only=True)
class SigmaHeunStep(AbstractSolverStep):
    """Heun's rule in the noise level sigma = (1 - t) / t, on the state x / t; second order.

    The slope there is the predicted noise x - t v. Start times must be above 0. With few steps it
    overshoots more than Heun's rule in time.

    Reference: Karras et al. 2022, arXiv:2206.00364v2, Alg. 1.
    """

    def __call__(
        self,
        teacher: FlowMap,
        x: Float[Tensor, " b *d"],
        s: Float[Tensor, " b"],
        t: Float[Tensor, " b"],
        condition: Condition | None,
    ) -> Float[Tensor, " b *d"]:
        """States at t of the trajectories of the teacher's velocity that are at x at time s."""
        start, end = rows_like(s, x), rows_like(t, x)
        grown = end / start * x
        # t (sigma_t - sigma_s) without the infinite levels at noise.
        change = (start - end) / start
        first = x - start * teacher.velocity(x, s, condition)
        reached = grown + change * first
        second = reached - end * teacher.velocity(reached, t, condition)
        return grown + change * (0.5 * (first + second))
