"""Guidance of a frozen teacher: by a weaker model, or by the teacher without its labels."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, final

import torch
from jaxtyping import Float
from torch import Tensor

from .autoguidance import Unconditional, guided_velocity
from .condition import Condition
from .flow_map import FlowMap
from .method import View
from .record import Moment, Nets
from .teacher import TEACHER, AbstractVelocitySource

WEAK: Final = "weak"


class AbstractGuide(ABC):
    """The worse velocity, from which a teacher's is pushed away."""

    @property
    @abstractmethod
    def frozen(self) -> Mapping[str, View]:
        """Frozen maps that it needs, by role; the teacher as a velocity goes without saying."""

    @abstractmethod
    def map(self, nets: Nets) -> FlowMap:
        """The worse map."""


@final
@dataclass(frozen=True, kw_only=True)
class WeakModel(AbstractGuide):
    """Autoguidance: a frozen model that is smaller or less trained than the teacher.

    Reference: Karras et al. 2024, arXiv:2406.02507v1.
    """

    @property
    def frozen(self) -> Mapping[str, View]:
        """The weak model, seen as a velocity."""
        return {WEAK: View.VELOCITY}

    def map(self, nets: Nets) -> FlowMap:
        """The weak model."""
        return nets.frozen[WEAK]


@final
@dataclass(frozen=True, kw_only=True)
class NullCondition(AbstractGuide):
    """Classifier-free guidance: the teacher itself, without the condition.

    The teacher must have lost its labels in training at times. Whether weights that were trained
    elsewhere have, nobody can tell: they are taken as they are.

    Reference: Ho and Salimans 2022, arXiv:2207.12598v1.
    """

    @property
    def frozen(self) -> Mapping[str, View]:
        """None beside the teacher, which is looked at in another way."""
        return {TEACHER: View.GUIDED}

    def map(self, nets: Nets) -> FlowMap:
        """The teacher that is told nothing."""
        return Unconditional(nets.frozen[TEACHER])


@final
@dataclass(frozen=True, kw_only=True)
class GuidedTeacher:
    """A teacher guided by a scale that is fixed, or drawn for each row and told to the student.

    v = scale v_teacher + (1 - scale) v_guide   with the scale uniform between two values

    Attributes:
        guide: The worse velocity.
        lowest: Smallest scale, at least 1.
        highest: Greatest scale, at least the smallest. If they differ the student takes the scale
            as a part of its condition, to be chosen when sampling.

    Raises:
        ValueError: If the scales are out of order or no guidance at all.
    """

    guide: AbstractGuide = WeakModel()
    lowest: float = 1.0
    highest: float = 3.0

    def __post_init__(self) -> None:
        if not 1.0 <= self.lowest <= self.highest or self.highest == 1.0:
            raise ValueError(
                "a guided teacher needs scales 1 <= lowest <= highest, the highest above 1, "
                f"got {self.lowest} and {self.highest}"
            )

    @property
    def is_input(self) -> bool:
        """Whether the student is told the scale."""
        return self.lowest < self.highest

    @property
    def frozen(self) -> Mapping[str, View]:
        """The teacher and what the guide needs, seen as velocities."""
        return {TEACHER: View.VELOCITY, **self.guide.frozen}

    def draw(self, n: int, now: Moment, *, like: Tensor) -> Float[Tensor, " n"]:
        """Scales of n rows, independent of each other, of the type and place of a tensor."""
        if not self.is_input:
            return like.new_full((n,), self.lowest)
        u = now.rng.uniform(n, dtype=like.dtype).to(like.device)
        return self.lowest + (self.highest - self.lowest) * u

    def velocity(
        self,
        nets: Nets,
        x: Float[Tensor, " b *d"],
        t: Float[Tensor, " b"],
        condition: Condition | None,
        *,
        scale: Float[Tensor, " b"],
    ) -> Float[Tensor, " b *d"]:
        """Guided velocity of each row, without a graph.

        Args:
            nets: Networks.
            x: States at t.
            t: Times.
            condition: Condition of each row, without a scale.
            scale: Scale of each row.
        """
        with torch.no_grad():
            weak = self.guide.map(nets)
            return guided_velocity(nets.frozen[TEACHER], weak, x, t, condition, scale=scale)


@final
@dataclass(frozen=True, kw_only=True)
class GuidedTeacherVelocity(AbstractVelocitySource):
    """A guided teacher of one scale as the velocity of continuous consistency, which has a source.

    Other methods read a frozen teacher as it is; Align Your Flow takes a ``GuidedTeacher``.

    Attributes:
        guide: The worse velocity.
        scale: Above 1.

    Raises:
        ValueError: If the scale guides nothing.
    """

    guide: AbstractGuide = WeakModel()
    scale: float = 2.0

    def __post_init__(self) -> None:
        if self.scale <= 1.0:
            raise ValueError(f"a guided velocity needs a scale above 1, got {self.scale}")

    @property
    def frozen(self) -> Mapping[str, View]:
        """The teacher and what the guide needs, seen as velocities."""
        return {TEACHER: View.VELOCITY, **self.guide.frozen}

    def velocity(
        self,
        nets: Nets,
        x: Float[Tensor, " b *d"],
        s: Float[Tensor, " b"],
        condition: Condition | None,
        *,
        own: Float[Tensor, " b *d"],
    ) -> Float[Tensor, " b *d"]:
        """The guided velocity in the precision of the data."""
        del own
        teacher = GuidedTeacher(guide=self.guide, lowest=self.scale, highest=self.scale)
        return teacher.velocity(nets, x, s, condition, scale=torch.full_like(s, self.scale))
