"""The space of a sweep: which overrides are tried, from which values, and which go together."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Self, final

from optuna.trial import BaseTrial

from .condition import Scalar, allowed_by
from .constraint import Constraint
from .dependency import check_parents, in_order
from .dimension import Dimension, Kind
from .feasible import find_outermost, find_point
from .schedule_space import SCHEDULE, ScheduleSpace
from .shape import sentence

_BEFORE_QUOTE: Final = re.compile(r"(\\+)(?='|$)")
_BARE: Final = re.compile(r"[A-Za-z_][\w.-]*")
_WORDS: Final = frozenset({"true", "false", "null", "none", "nan", "inf"})
_CONSTRAINTS: Final = "constraints"
Part = Dimension | ScheduleSpace


@final
@dataclass(frozen=True, kw_only=True)
class Space:
    """The swept keys.

    A point of the space has a value for each dimension that is present in it.

    Attributes:
        parts: What is drawn, by key as it was written; a key is the left side of an override.
        constraints: Inequalities between dimensions.
        dimensions: Dimensions by key, with those of schedules one by one; each stands after those
            that it depends on.

    Raises:
        ValueError: If there are no keys, a condition or a constraint names what is not there, or
            no point satisfies all of them.
    """

    parts: Mapping[str, Part]
    constraints: tuple[Constraint, ...] = ()
    dimensions: Mapping[str, Dimension] = field(init=False)

    def __post_init__(self) -> None:
        if not self.parts:
            raise ValueError("sweep.space needs at least one key, got none")
        plain: dict[str, Dimension] = {}
        for key, part in self.parts.items():
            for other in self.schedules:
                if key.startswith(f"{other}."):
                    raise ValueError(f"sweep.space[{key}] is a part of the schedule {other}")
            plain |= part.dimensions(key) if isinstance(part, ScheduleSpace) else {key: part}
        if not plain:
            raise ValueError("sweep.space needs at least one key, got schedules that are fixed")
        for key, part in self.parts.items():
            check_parents(key, part.when, plain)
        object.__setattr__(self, "dimensions", in_order(plain))
        for key, one in self.dimensions.items():
            if find_point(self.dimensions, (), fixed={key: one.extremes[0]}) is None:
                raise ValueError(
                    f"sweep.space[{self.written(key)}] is never present: no point has its when"
                )
        for constraint in self.constraints:
            self._check_constraint(constraint)
        if self.point() is None:
            raise ValueError("no point of sweep.space satisfies all of its constraints")

    def _check_constraint(self, constraint: Constraint) -> None:
        try:
            for key in constraint.keys:
                if key not in self.dimensions:
                    raise ValueError(f"{key} is not in sweep.space")
                try:
                    _ = self.dimensions[key].range
                except ValueError as error:
                    raise ValueError(f"{key} is no number: {error}") from error
            ranges = {key: self.dimensions[key].range for key in constraint.keys}
            constraint.check_bounds(ranges)
            fixed = {key: self.dimensions[key].extremes[0] for key in constraint.keys}
            if find_point(self.dimensions, (), fixed=fixed) is None:
                raise ValueError("no point has all of its keys")
        except ValueError as error:
            raise ValueError(f"sweep.space[{_CONSTRAINTS}], {constraint}: {error}") from error

    @classmethod
    def from_dict(cls, values: object) -> Self:
        """The space that plain values describe.

        Args:
            values: For each key a mapping with its ``kind``, and perhaps a list of
                ``constraints``.

        Returns:
            The space.

        Raises:
            ValueError: If there are no values by key, or a key's values are refused; the message
                names the key.
        """
        if not isinstance(values, Mapping):
            raise ValueError(f"sweep.space must be values by key, got {values!r}")
        parts: dict[str, Part] = {}
        for key, node in values.items():
            if key == _CONSTRAINTS:
                continue
            if not isinstance(node, Mapping):
                raise ValueError(f"sweep.space[{key}] must be a mapping with a kind, got {node!r}")
            kind = ScheduleSpace if node.get("kind") == SCHEDULE else Dimension
            try:
                parts[str(key)] = kind.from_dict(node)
            except ValueError as error:
                raise ValueError(f"sweep.space[{key}]: {error}") from error
        written = values.get(_CONSTRAINTS, [])
        if not isinstance(written, list | tuple):
            raise ValueError(f"sweep.space[{_CONSTRAINTS}] must be a list, got {written!r}")
        try:
            constraints = tuple(Constraint(text=text) for text in written)
        except ValueError as error:
            raise ValueError(f"sweep.space[{_CONSTRAINTS}]: {error}") from error
        return cls(parts=parts, constraints=constraints)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, from which ``from_dict`` makes an equal space."""
        node: dict[str, Any] = {key: part.to_dict() for key, part in self.parts.items()}
        if self.constraints:
            node[_CONSTRAINTS] = [one.text for one in self.constraints]
        return node

    @property
    def schedules(self) -> dict[str, ScheduleSpace]:
        """The schedules, by key as it was written."""
        return {key: one for key, one in self.parts.items() if isinstance(one, ScheduleSpace)}

    def suggest(self, trial: BaseTrial) -> dict[str, Scalar]:
        """A point that Optuna suggests, asked for dimension by dimension.

        Constraints are not looked at: ``violated`` does.

        Args:
            trial: Trial of Optuna.

        Returns:
            Values of the dimensions that are present.
        """
        values: dict[str, Scalar] = {}
        for key, one in self.dimensions.items():
            if one.is_present(values):
                values[key] = one.suggest(trial, key)
        return values

    def overrides(self, values: Mapping[str, Scalar]) -> tuple[str, ...]:
        """The overrides of a point.

        Args:
            values: Values of the dimensions that are present, and of no others.

        Returns:
            Overrides of ``onestep train``, in the order of the keys as they were written.

        Raises:
            ValueError: If a value is missing or too many, or numbers make no schedule.
        """
        present = self._present(values)
        if present != set(values):
            missing, surplus = sorted(present - set(values)), sorted(set(values) - present)
            raise ValueError(
                f"these values are no point of the space: missing {missing}, surplus {surplus}"
            )
        texts: list[str] = []
        for key, part in self.parts.items():
            if isinstance(part, Dimension):
                texts += [override(key, values[key])] if key in present else []
            elif part.is_present(values):
                texts += part.overrides(key, values)
        return tuple(texts)

    def _present(self, values: Mapping[str, Scalar]) -> set[str]:
        """Keys of the dimensions that a point of these values has."""
        found: dict[str, Scalar] = {}
        present = set()
        for key, one in self.dimensions.items():
            if one.is_present(found):
                present.add(key)
                found |= {key: values[key]} if key in values else {}
        return present

    def violated(self, values: Mapping[str, Scalar]) -> str | None:
        """The first constraint that a point breaks, as it was written.

        Args:
            values: Values of the point.

        Returns:
            The constraint, or None.
        """
        return next((one.text for one in self.constraints if not one.holds(values)), None)

    def sentences(self, values: Mapping[str, Scalar]) -> tuple[str, ...]:
        """The schedules of a point in words.

        Args:
            values: Values of the point.
        """
        return tuple(
            f"{key}: {sentence(one.schedule(key, values))}"
            for key, one in self.schedules.items()
            if one.is_present(values)
        )

    def point(self, fixed: Mapping[str, Scalar] | None = None) -> dict[str, Scalar] | None:
        """A point that satisfies all constraints.

        Args:
            fixed: Values that it must have.

        Returns:
            The point, or None if there is none.
        """
        return find_point(self.dimensions, self.constraints, fixed=fixed)

    @property
    def first(self) -> dict[str, Scalar]:
        """One point of the space: the first extreme of each key, as far as constraints allow."""
        point = self.point()
        assert point is not None
        return point

    @property
    def edges(self) -> list[tuple[str, dict[str, Scalar]]]:
        """Points in which a key is as far out as the constraints allow, and each choice in one.

        Returns:
            Keys, each with a point.

        Raises:
            ValueError: If no point has a key, or a value of a choice.
        """
        return [(key, point) for key in self.dimensions for point in self._edges(key)]

    def _edges(self, key: str) -> list[dict[str, Scalar]]:
        one = self.dimensions[key]
        points = [self.point({key: value}) for value in one.extremes]
        if one.kind is not Kind.CHOICE:
            points = [
                point
                or find_outermost(self.dimensions, self.constraints, key, is_greatest=is_greatest)
                for point, is_greatest in zip(points, (False, True), strict=True)
            ]
        for value, point in zip(one.extremes, points, strict=True):
            if point is None:
                raise ValueError(
                    f"sweep.space[{self.written(key)}]: no point with {key} {value!r} satisfies "
                    "the constraints"
                )
        return [point for point in points if point is not None]

    def written(self, key: str) -> str:
        """The key under which a dimension was written."""
        if key in self.parts:
            return key
        return max((one for one in self.parts if key.startswith(f"{one}.")), key=len)

    def with_values(self, key: str, new: Mapping[Scalar, Scalar]) -> Self:
        """The same space with other values of a choice, in the conditions of others, too.

        Args:
            key: The choice.
            new: The other value of each value.
        """

        def renamed(part: Part) -> Part:
            when = {
                parent: tuple(new[one] if parent == key else one for one in values)
                for parent, values in allowed_by(part.when).items()
            }
            return replace(part, when=when)

        parts = {one: renamed(part) for one, part in self.parts.items()}
        choice = parts[key]
        assert isinstance(choice, Dimension)
        parts[key] = replace(choice, values=tuple(new[value] for value in choice.values))
        return replace(self, parts=parts)


def override(key: str, value: Scalar) -> str:
    """One override, in Hydra's grammar, that gives exactly this value.

    Args:
        key: Left side.
        value: Right side.
    """
    match value:
        case None:
            text = "null"
        case bool():
            text = str(value).lower()
        case str() if not _BARE.fullmatch(value) or value.lower() in _WORDS:
            # Hydra halves backslashes before a quote only.
            text = "'" + _BEFORE_QUOTE.sub(r"\1\1", value).replace("'", "\\'") + "'"
        case str():
            text = value
        case _:
            text = repr(value)
    return f"{key}={text}"
