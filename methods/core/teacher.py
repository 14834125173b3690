"""Where a method takes the velocity of a trajectory from: its own pair, or a frozen teacher.

And whether a frozen model was trained where a method asks it.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

from jaxtyping import Float
from torch import Tensor

from .condition import Condition
from .flow_map import Domain, DomainKind
from .guided_teacher import AbstractTeacherGuidance, Unguided
from .method import Needs, Reading, View
from .record import Nets


class AbstractVelocitySource(ABC):
    """The velocity along which a derivative is taken."""

    @abstractmethod
    def needs(self, on: Domain) -> Needs:
        """What it asks the platform for.

        Args:
            on: The times at which it is read.
        """

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

    def needs(self, on: Domain) -> Needs:
        """Nothing."""
        del on
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

    def needs(self, on: Domain) -> Needs:
        """The teacher, seen as a velocity, and what guides it."""
        return self.guidance.needs(Reading(on=on))

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


def require_reading(role: str, model: str, domain: Domain, reading: Reading) -> None:
    """Refuse a frozen model that was not trained where a method asks it.

    Args:
        role: What the model is to the method.
        model: What it is called.
        domain: Its domain.
        reading: How and where the method asks it.

    Raises:
        ValueError: If it says nothing there.
    """
    if reading.view is not View.JUMP and not domain.has_velocity:
        raise ValueError(
            f"the method reads the {role} as a velocity, got {model} with domain {domain.kind}"
        )
    if reading.pairing not in (None, domain.has_paired_noise):
        wanted, got = ("paired with", "independent of")[:: 1 if reading.pairing else -1]
        raise ValueError(
            f"the method takes states of noise {wanted} the data to have the velocity of its "
            f"{role}, got {model}, which was trained with noise {got} them"
        )
    on = reading.on
    if on is not None and not domain.includes(on):
        raise ValueError(
            f"the method asks its {role} for domain {on.words}, got {model} with domain "
            f"{domain.words}: allowed from {on.t_lo:g} to {on.t_hi:g} is {_kinds_around(on)}"
        )


def require_readings(needs: Needs, nets: Nets) -> None:
    """Refuse frozen networks that were not trained where a method asks them.

    Args:
        needs: What the method asks for.
        nets: The networks that it is given.

    Raises:
        ValueError: If one says nothing there.
    """
    for role, reading in needs.frozen.items():
        require_reading(role, "one", nets.frozen[role].domain, reading)


def _kinds_around(on: Domain) -> str:
    """The domains that may hold all jumps of another, in words."""
    is_dyadic = on.steps & (on.steps - 1) == 0
    match on.kind:
        case DomainKind.DIAGONAL:
            return "diagonal, grid or triangle"
        case DomainKind.TILING if is_dyadic:
            return f"tiling of {on.steps} steps, grid of {on.steps} or more, or triangle"
        case DomainKind.TILING:
            return f"tiling of {on.steps} steps or triangle"
        case DomainKind.GRID:
            return f"grid of {on.steps} steps or more, or triangle"
        case DomainKind.TRIANGLE:
            return "triangle"
        case DomainKind.TO_DATA | DomainKind.FROM_NOISE:
            return f"{on.kind} or triangle"
