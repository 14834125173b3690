"""Warm start: points that a sweep tries first, because they were good elsewhere."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Self, final

from optuna.study import Study

from .condition import Scalar
from .space import Space

_FIRST: Final = "warm_start"


@final
@dataclass(frozen=True, kw_only=True)
class WarmStart:
    """Where the first points of a sweep come from.

    Attributes:
        sweeps: Names of earlier sweeps over some of the same keys, for the same objectives.
        best: How many of the best finished trials of each are tried again.
        registry: Whether the best registered model of the same method and data is trained again.

    Raises:
        ValueError: If ``best`` is below 1 or a sweep is named twice.
    """

    sweeps: tuple[str, ...] = ()
    best: int = 3
    registry: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "sweeps", tuple(self.sweeps))
        if self.best < 1:
            raise ValueError(f"sweep.warm_start.best must be at least 1, got {self.best}")
        if len(set(self.sweeps)) < len(self.sweeps):
            raise ValueError(
                f"sweep.warm_start.sweeps must name each sweep once, got {', '.join(self.sweeps)}"
            )

    @property
    def is_asked(self) -> bool:
        """Whether there is anything to start from."""
        return bool(self.sweeps) or self.registry


@final
@dataclass(frozen=True, kw_only=True)
class FirstPoint:
    """A point that is tried because it was good elsewhere.

    Attributes:
        values: Values of the dimensions that are present in it.
        origin: Where it comes from.
    """

    values: Mapping[str, Scalar]
    origin: str


@final
@dataclass(frozen=True, kw_only=True)
class FirstPoints:
    """The points that a sweep tries first, and what was left out.

    Attributes:
        points: The points; the first one is that of trial 0.
        left_out: A sentence for each that is not among them.
    """

    points: tuple[FirstPoint, ...] = ()
    left_out: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, candidates: Sequence[FirstPoint], space: Space, *, left_out: Sequence[str] = ()
    ) -> Self:
        """Those of some points that lie in a space, each once.

        Args:
            candidates: The points, the first ones first.
            space: The space.
            left_out: A sentence for each that has no values in the space.
        """
        points: dict[tuple[str, ...], FirstPoint] = {}
        said = list(left_out)
        for one in candidates:
            if (reason := outside(space, one.values)) is not None:
                said.append(f"{one.origin}: {reason}")
                continue
            # Not by values: lengths that differ in digits that are rounded give one schedule.
            first = points.setdefault(space.overrides(one.values), one)
            if first is not one:
                said.append(f"{one.origin}: the same point as {first.origin}")
        return cls(points=tuple(points.values()), left_out=tuple(said))

    @classmethod
    def known_to(cls, study: Study) -> Self | None:
        """The first points that a study remembers, or None if it has not been told yet."""
        kept: Mapping[str, Any] | None = study.user_attrs.get(_FIRST)
        if kept is None:
            return None
        points = tuple(FirstPoint(**one) for one in kept["points"])
        return cls(points=points, left_out=tuple(kept["left_out"]))

    def sentences(self, most: int) -> list[str]:
        """What is said of them: which trial starts from which, and which are left out.

        Args:
            most: Trials that begin from the start; points beyond them wait for more trials.
        """
        tried = [f"trial {k} starts from {one.origin}" for k, one in enumerate(self.points[:most])]
        beyond = [f"{one.origin}: no trial is left for it" for one in self.points[most:]]
        return [*tried, *(f"left out is {line}" for line in (*self.left_out, *beyond))]

    def keep(self, study: Study) -> None:
        """Let a study remember them, all at once.

        Args:
            study: The study, in which no trial has begun.
        """
        study.set_user_attr(_FIRST, asdict(self))


def outside(space: Space, values: Mapping[str, Scalar]) -> str | None:
    """Why values are no point of a space, or None if they are one.

    Args:
        space: The space.
        values: The values.
    """
    for key, value in values.items():
        one = space.dimensions.get(key)
        if one is not None and not one.has(value):
            return f"{key} is {value!r}, which sweep.space does not draw"
    try:
        space.overrides(values)
    except ValueError as error:
        return str(error)
    broken = space.violated(values)
    return None if broken is None else f"it breaks the constraint {broken}"
