"""Where a method takes the velocity of a trajectory from: its own pair, or a frozen teacher."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Final, final

from jaxtyping import Float
from torch import Tensor

from .condition import Condition
from .flow_map import FlowMap
from .guided_teacher import AbstractTeacherGuidance, Unguided
from .method import Needs
from .record import Nets

_ROUNDING: Final = 1e-6


class AbstractVelocitySource(ABC):
    """The velocity along which a derivative is taken."""

    @property
    @abstractmethod
    def needs(self) -> Needs:
        """What it asks the platform for."""

    @property
    @abstractmethod
    def guidance(self) -> AbstractTeacherGuidance:
        """What the student is told of a teacher's guidance."""

    @abstractmethod
    def velocity(
        self,
        nets: Nets,
        x: Float[Tensor, " b *d"],
        s: Float[Tensor, " b"],
        condition: Condition | None,
        *,
        own: Float[Tensor, " b *d"],
    ) -> Float[Tensor, " b *d"]:
        """Velocity of each row, without a graph.

        Args:
            nets: Networks.
            x: States at s.
            s: Times.
            condition: Condition of each row.
            own: Velocity of the pair of noise and data that made x.
        """


@final
@dataclass(frozen=True, kw_only=True)
class PairVelocity(AbstractVelocitySource):
    """The pair's own, whose mean at (x, s) is the velocity: training without a teacher."""

    @property
    def needs(self) -> Needs:
        """Nothing."""
        return Needs()

    @property
    def guidance(self) -> AbstractTeacherGuidance:
        """None."""
        return Unguided()

    def velocity(
        self,
        nets: Nets,
        x: Float[Tensor, " b *d"],
        s: Float[Tensor, " b"],
        condition: Condition | None,
        *,
        own: Float[Tensor, " b *d"],
    ) -> Float[Tensor, " b *d"]:
        """The pair's own velocity."""
        del nets, x, s, condition
        return own


@final
@dataclass(frozen=True, kw_only=True)
class TeacherVelocity(AbstractVelocitySource):
    """A frozen teacher's: distillation, without noise in the target.

    Attributes:
        guidance: How the teacher is guided.
    """

    guidance: AbstractTeacherGuidance = Unguided()

    @property
    def needs(self) -> Needs:
        """The teacher, seen as a velocity, and what guides it."""
        return self.guidance.needs()

    def velocity(
        self,
        nets: Nets,
        x: Float[Tensor, " b *d"],
        s: Float[Tensor, " b"],
        condition: Condition | None,
        *,
        own: Float[Tensor, " b *d"],
    ) -> Float[Tensor, " b *d"]:
        """The teacher's velocity in the precision of the data."""
        del own
        return self.guidance.velocity(nets, x, s, condition)


def require_teacher(teacher: FlowMap, *, t_lo: float) -> None:
    """Refuse a teacher that was not trained up to the data from where a student begins.

    Args:
        teacher: The teacher.
        t_lo: First time of the student.

    Raises:
        ValueError: If its range is shorter.
    """
    domain = teacher.domain
    if domain.t_lo > t_lo + _ROUNDING or domain.t_hi < 1.0 - _ROUNDING:
        raise ValueError(
            f"the student's times reach from {t_lo:g} to 1, so that the teacher's must too, "
            f"got a teacher on [{domain.t_lo:g}, {domain.t_hi:g}]"
        )
