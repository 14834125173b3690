"""A frozen teacher as it is, or guided: by a weaker model, or by itself without its labels."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, final

import torch
from jaxtyping import Float
from torch import Tensor

from .autoguidance import Guided, Unconditional
from .condition import Condition
from .flow_map import FlowMap
from .method import TEACHER, Ema, Needs, Reading, View
from .record import Batch, CompanionFactory, Moment, Nets

WEAK: Final = "weak"


class AbstractGuide(ABC):
    """The worse velocity, from which a teacher's is pushed away."""

    @abstractmethod
    def frozen(self, reading: Reading) -> Mapping[str, Reading]:
        """Frozen maps that it needs, by role; the teacher as a velocity goes without saying.

        Args:
            reading: How and where the method asks its teacher.
        """

    @abstractmethod
    def map(self, nets: Nets) -> FlowMap:
        """The worse map."""


@final
@dataclass(frozen=True, kw_only=True)
class WeakModel(AbstractGuide):
    """Autoguidance: a frozen model that is smaller or less trained than the teacher.

    Reference: Karras et al. 2024, arXiv:2406.02507v1.
    """

    def frozen(self, reading: Reading) -> Mapping[str, Reading]:
        """The weak model, asked as the teacher is."""
        return {WEAK: reading}

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

    def frozen(self, reading: Reading) -> Mapping[str, Reading]:
        """None beside the teacher, which is looked at in another way."""
        return {TEACHER: replace(reading, view=View.GUIDED)}

    def map(self, nets: Nets) -> FlowMap:
        """The teacher that is told nothing."""
        return Unconditional(nets.frozen[TEACHER])


class AbstractTeacherGuidance(ABC):
    """How a method reads its frozen teacher, and what the student is told of it."""

    @property
    @abstractmethod
    def is_on(self) -> bool:
        """Whether the teacher's velocity may differ from that of its data."""

    @property
    @abstractmethod
    def scales(self) -> tuple[float, float] | None:
        """Lowest and highest scale that is drawn and told to the student, or None."""

    @property
    @abstractmethod
    def told(self) -> frozenset[str]:
        """Frozen maps that are told the scale too, by role."""

    @abstractmethod
    def frozen(self, reading: Reading) -> Mapping[str, Reading]:
        """Frozen maps that it needs, by role.

        Args:
            reading: How and where the method asks its teacher.

        Raises:
            ValueError: If a teacher cannot be read so under this view.
        """

    @abstractmethod
    def tell(self, condition: Condition | None, batch: Batch, now: Moment) -> Condition | None:
        """What the student is told of the rows of a batch.

        Args:
            condition: Labels that the rows have kept, if any.
            batch: The rows.
            now: The moment, the only source of randomness.
        """

    @abstractmethod
    def teacher(self, nets: Nets) -> FlowMap:
        """The teacher as a map of states and of what the student is told.

        Args:
            nets: Networks.
        """

    def velocity(
        self,
        nets: Nets,
        x: Float[Tensor, " b *d"],
        t: Float[Tensor, " b"],
        condition: Condition | None,
    ) -> Float[Tensor, " b *d"]:
        """The teacher's velocity without a graph, in the precision of the states.

        Args:
            nets: Networks.
            x: States at t.
            t: Times.
            condition: What the student is told.
        """
        with torch.no_grad():
            return self.teacher(nets).velocity(x, t, condition).to(x.dtype)

    def needs(
        self,
        reading: Reading | None = None,
        *,
        target: Ema | None = None,
        companions: Mapping[str, CompanionFactory] | None = None,
    ) -> Needs:
        """What a method with this teacher asks the platform for.

        Args:
            reading: How and where it asks the teacher; None for its velocity in its own range.
            target: Its target network, or None.
            companions: Its trained companions, if any.
        """
        return Needs(
            target=target,
            frozen=self.frozen(reading or Reading()),
            companions=companions or {},
            scales=self.scales,
            told=self.told,
        )

    def of_teacher(self, condition: Condition | None) -> Condition | None:
        """What the teacher's own network may be told, given what the student is.

        Args:
            condition: What the student is told.
        """
        if condition is None or TEACHER in self.told:
            return condition
        return condition.without_guidance()


@final
@dataclass(frozen=True, kw_only=True)
class Unguided(AbstractTeacherGuidance):
    """The teacher as it is."""

    @property
    def is_on(self) -> bool:
        """Never."""
        return False

    @property
    def scales(self) -> tuple[float, float] | None:
        """None."""
        return None

    @property
    def told(self) -> frozenset[str]:
        """None."""
        return frozenset()

    def frozen(self, reading: Reading) -> Mapping[str, Reading]:
        """The teacher alone."""
        return {TEACHER: reading}

    def tell(self, condition: Condition | None, batch: Batch, now: Moment) -> Condition | None:
        """The labels."""
        del batch, now
        return condition

    def teacher(self, nets: Nets) -> FlowMap:
        """The teacher."""
        return nets.frozen[TEACHER]


@final
@dataclass(frozen=True, kw_only=True)
class GuidedTeacher(AbstractTeacherGuidance):
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
        require_scales("a guided teacher", self.lowest, self.highest)

    @property
    def is_drawn(self) -> bool:
        """Whether each row has a scale of its own."""
        return self.lowest < self.highest

    @property
    def is_on(self) -> bool:
        """Always."""
        return True

    @property
    def scales(self) -> tuple[float, float] | None:
        """Both ends, if the scale is drawn."""
        return (self.lowest, self.highest) if self.is_drawn else None

    @property
    def told(self) -> frozenset[str]:
        """None: they are guided from outside."""
        return frozenset()

    def frozen(self, reading: Reading) -> Mapping[str, Reading]:
        """The teacher and what the guide needs, seen as velocities."""
        if reading.view is not View.VELOCITY:
            raise ValueError(
                f"a guided teacher is read as a velocity, got view {reading.view}: set the view to "
                "velocity, or take GuidanceInput where the teacher takes a scale itself"
            )
        return {TEACHER: reading, **self.guide.frozen(reading)}

    def tell(self, condition: Condition | None, batch: Batch, now: Moment) -> Condition | None:
        """The labels, and the scale if it is drawn."""
        if not self.is_drawn:
            return condition
        return with_scales(condition, batch, now, lowest=self.lowest, highest=self.highest)

    def teacher(self, nets: Nets) -> FlowMap:
        """The guided velocity."""
        scale = None if self.is_drawn else self.lowest
        return Guided(nets.frozen[TEACHER], self.guide.map(nets), scale=scale)


@final
@dataclass(frozen=True, kw_only=True)
class GuidanceInput(AbstractTeacherGuidance):
    """A teacher that takes the scale as an input: teacher and student are told the same.

    So is the second stage of guided distillation led, whose first has a ``GuidedTeacher``.

    Reference: Meng et al. 2022, arXiv:2210.03142v3, section 3.

    Attributes:
        lowest: Smallest scale, at least 1.
        highest: Greatest scale, above the smallest; the law of the scale is uniform between both.

    Raises:
        ValueError: If the scales are out of order or the same.
    """

    lowest: float = 1.0
    highest: float = 3.0

    def __post_init__(self) -> None:
        require_scales("a scale as an input", self.lowest, self.highest)
        if self.lowest == self.highest:
            raise ValueError(f"a scale as an input needs lowest < highest, got {self.lowest} twice")

    @property
    def is_on(self) -> bool:
        """Always."""
        return True

    @property
    def scales(self) -> tuple[float, float] | None:
        """Both ends."""
        return self.lowest, self.highest

    @property
    def told(self) -> frozenset[str]:
        """The teacher."""
        return frozenset({TEACHER})

    def frozen(self, reading: Reading) -> Mapping[str, Reading]:
        """The teacher alone."""
        return {TEACHER: reading}

    def tell(self, condition: Condition | None, batch: Batch, now: Moment) -> Condition | None:
        """The labels and the scale."""
        return with_scales(condition, batch, now, lowest=self.lowest, highest=self.highest)

    def teacher(self, nets: Nets) -> FlowMap:
        """The teacher."""
        return nets.frozen[TEACHER]


def require_scales(who: str, lowest: float, highest: float) -> None:
    """Refuse scales that are out of order or guide nothing.

    Args:
        who: What has them, as the error begins.
        lowest: Smallest scale.
        highest: Greatest scale.

    Raises:
        ValueError: If they do.
    """
    if not 1.0 <= lowest <= highest < math.inf or highest == 1.0:
        raise ValueError(
            f"{who} needs finite scales 1 <= lowest <= highest, the highest above 1, "
            f"got {lowest} and {highest}"
        )


def with_scales(
    condition: Condition | None,
    batch: Batch,
    now: Moment,
    *,
    lowest: float,
    highest: float,
) -> Condition:
    """A condition with a scale for each row, uniform between two values.

    Args:
        condition: Labels that the rows have kept, if any.
        batch: The rows.
        now: The moment, the only source of randomness.
        lowest: Smallest scale.
        highest: Greatest scale.
    """
    u = now.rng.uniform(len(batch), dtype=batch.x1.dtype).to(batch.x1.device)
    return replace(condition or Condition(), guidance=lowest + (highest - lowest) * u)
