"""Schedule spaces: a dimension whose values are whole curricula, in numbers that a person reads."""

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any, Final, Self, final

from ..methods.core.schedule import Clock, Schedule
from .condition import Scalar, When, is_met, plain_when, read_when
from .dimension import Dimension, Kind, is_number
from .shape import PIECEWISE, SHAPES, fields_of, make, name_of, node_of, numbers_of, values_of

SCHEDULE: Final = "schedule"
"""The kind of a schedule space."""
_OF_PIECES: Final = ("start", "end", "lengths", "values")
_SETTINGS: Final = ("kind", "shapes", "knots", "clock", "when")
Part = Dimension | int | float


@final
@dataclass(frozen=True, kw_only=True)
class ScheduleSpace:
    """Curricula: a shape and its numbers, each number fixed or a dimension of its own.

    All shapes but the constant lead from ``start`` to ``end``. A ramp does so between the readings
    ``begin`` and ``until``, or ``begin`` and a ``length`` after it. A piecewise schedule stays at
    ``start`` for a first length, at each of its ``values`` for another, and then at ``end``: a knot
    follows each length, so that knots rise whatever is drawn.

    Attributes:
        shapes: Names of what is chosen from.
        parts: The fields of the shapes by name; ``length`` may take the place of ``until``.
        knots: How many knots a piecewise schedule may have.
        clock: What readings and lengths count.
        when: Values of other choices, by key, at which the schedule is drawn.

    Raises:
        ValueError: If a shape is unknown, a part is missing, has no effect or is no number, or
            some numbers make no schedule.
    """

    shapes: tuple[str, ...]
    parts: Mapping[str, Part]
    knots: tuple[int, ...] = ()
    clock: Clock = Clock.PROGRESS
    when: When = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("shapes", "knots"):
            if not isinstance(getattr(self, name), list | tuple):
                raise ValueError(f"{name} must be a list, got {getattr(self, name)!r}")
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "when", read_when(self.when))
        if self.clock not in list(Clock):
            raise ValueError(f"clock must be one of {', '.join(Clock)}, got {self.clock!r}")
        object.__setattr__(self, "clock", Clock(self.clock))
        self._check_shapes()
        self._check_parts()
        for shape in self.shapes:
            self._probe(shape)

    def _check_shapes(self) -> None:
        for shape in self.shapes:
            if not isinstance(shape, str) or shape not in SHAPES:
                raise ValueError(f"shapes are {', '.join(SHAPES)}, got {shape!r}")
        if not self.shapes or len(set(self.shapes)) < len(self.shapes):
            raise ValueError(f"shapes must be different and at least one, got {list(self.shapes)}")
        is_count = all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in self.knots)
        if not is_count or len(set(self.knots)) < len(self.knots):
            raise ValueError(
                f"knots must be different whole numbers from 1, got {list(self.knots)}"
            )
        if bool(self.knots) is not (PIECEWISE in self.shapes):
            raise ValueError(
                f"knots and the shape piecewise need each other, got shapes {list(self.shapes)} "
                f"and knots {list(self.knots)}"
            )

    def _check_parts(self) -> None:
        if {"until", "length"} <= self.parts.keys():
            raise ValueError("until and length say the same: give one of them")
        needed = {name for shape in self.shapes for name in self._needed(shape)}
        if missing := sorted(needed - self.parts.keys()):
            raise ValueError(
                f"shapes {', '.join(self.shapes)} need {', '.join(sorted(needed))}, "
                f"missing: {', '.join(missing)}"
            )
        for name, part in self.parts.items():
            if not self._shapes_with(name):
                raise ValueError(f"no shape of {', '.join(self.shapes)} has {name}")
            if isinstance(part, Dimension):
                self._check_dimension(name, part)
            elif not is_number(part):
                raise ValueError(f"{name} must be a number or a mapping with a kind, got {part!r}")

    def _check_dimension(self, name: str, part: Dimension) -> None:
        if part.when:
            raise ValueError(f"{name} has no when of its own: the schedule may have one")
        try:
            _ = part.range
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error

    def _needed(self, shape: str) -> set[str]:
        """Parts without which a shape cannot be drawn."""
        if shape == PIECEWISE:
            return {*_OF_PIECES} - (set() if max(self.knots) > 1 else {"values"})
        parameters = fields_of(shape)
        names = {name for name, one in parameters.items() if one.default is inspect.Parameter.empty}
        # A clock that does not end by itself says nothing about where a ramp does.
        is_open = "until" in parameters and self.clock is not Clock.PROGRESS
        return names | ({"until"} if is_open and "length" not in self.parts else set())

    def _shapes_with(self, name: str) -> tuple[str, ...]:
        """Shapes on which a part has an effect."""
        return tuple(shape for shape in self.shapes if name in self._parts_of(shape))

    def _parts_of(self, shape: str) -> set[str]:
        if shape == PIECEWISE:
            return {*self._needed(shape), "knots"}
        names = fields_of(shape).keys() - {"clock"}
        return names | ({"length"} if "until" in names else set())

    @classmethod
    def from_dict(cls, node: Mapping[Any, Any]) -> Self:
        """The schedule space that plain values describe.

        Args:
            node: ``shapes``, parts by name, and perhaps ``knots``, ``clock`` and ``when``.

        Returns:
            The space.

        Raises:
            ValueError: If a part or a setting is refused.
        """
        if "shapes" not in node:
            raise ValueError(f"a schedule needs shapes, of {', '.join(SHAPES)}")
        parts: dict[str, Part] = {}
        for name, part in node.items():
            if name in _SETTINGS:
                continue
            try:
                parts[str(name)] = Dimension.from_dict(part) if isinstance(part, Mapping) else part
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
        return cls(parts=parts, **{k: node[k] for k in _SETTINGS[1:] if k in node})

    def to_dict(self) -> dict[str, Any]:
        """Plain values, from which ``from_dict`` makes an equal space."""
        node: dict[str, Any] = {"kind": SCHEDULE, "shapes": list(self.shapes)}
        for name, part in self.parts.items():
            node[name] = part.to_dict() if isinstance(part, Dimension) else part
        if self.knots:
            node["knots"] = list(self.knots)
        if self.clock is not Clock.PROGRESS:
            node["clock"] = str(self.clock)
        return node | ({"when": plain_when(self.when)} if self.when else {})

    def dimensions(self, key: str) -> dict[str, Dimension]:
        """The dimensions of the shape and of its numbers, present where the shape needs them.

        Args:
            key: Where the schedule stands.

        Returns:
            Dimensions by key; none for what is fixed.
        """
        found = {}
        if len(self.shapes) > 1:
            shape = Dimension(kind=Kind.CHOICE, values=self.shapes)
            found[f"{key}.shape"] = replace(shape, when=self.when)
        if len(self.knots) > 1:
            knots = Dimension(kind=Kind.CHOICE, values=self.knots)
            found[f"{key}.knots"] = replace(knots, when=self._when(key, "knots"))
        for name, (written, least) in self._numbers.items():
            part = self.parts[written]
            if isinstance(part, Dimension):
                found[f"{key}.{name}"] = replace(part, when=self._when(key, written, least))
        return found

    def _when(self, key: str, part: str, least: int = 0) -> When:
        """Where a part counts: with which shapes, and from how many knots on."""
        when = dict(self.when)
        shapes = self._shapes_with(part)
        if len(shapes) < len(self.shapes):
            when[f"{key}.shape"] = shapes
        knots = tuple(n for n in self.knots if n >= least)
        if len(knots) < len(self.knots):
            when[f"{key}.knots"] = knots
        return when

    @property
    def _numbers(self) -> dict[str, tuple[str, int]]:
        """Names of all numbers, each with its part and the least number of knots that needs it."""
        found: dict[str, tuple[str, int]] = {}
        most = max(self.knots, default=0)
        for part in self.parts:
            match part:
                case "lengths":
                    found |= {f"length_{n}": (part, n) for n in range(1, most + 1)}
                case "values":
                    found |= {f"value_{n}": (part, n) for n in range(2, most + 1)}
                case _:
                    found[part] = (part, 0)
        return found

    def is_present(self, values: Mapping[str, Scalar]) -> bool:
        """Whether a point draws the schedule.

        Args:
            values: Values of the point, of which those of other choices count.
        """
        return is_met(self.when, values)

    def schedule(self, key: str, values: Mapping[str, Scalar]) -> Schedule:
        """The schedule of a point.

        Args:
            key: Where the schedule stands.
            values: Values of its dimensions.

        Returns:
            The schedule.

        Raises:
            ValueError: If the schedule's class refuses a value.
        """
        numbers: dict[str, Scalar] = {}
        for name, (written, _) in self._numbers.items():
            part = self.parts[written]
            if not isinstance(part, Dimension):
                numbers[name] = part
            elif f"{key}.{name}" in values:
                numbers[name] = values[f"{key}.{name}"]
        shape = str(values.get(f"{key}.shape", self.shapes[0]))
        knots = values.get(f"{key}.knots", max(self.knots, default=0))
        assert isinstance(knots, int)
        return make(shape, knots, numbers, self.clock)

    def values_of(self, key: str, schedule: Schedule) -> dict[str, Scalar]:
        """The values of the dimensions that give a schedule: the inverse of ``schedule``.

        What lengths add up to is rounded, so that a length is known to as many digits.

        Args:
            key: Where the schedule stands.
            schedule: The schedule.

        Returns:
            Values of the dimensions that are present.

        Raises:
            ValueError: If no values give exactly this schedule.
        """
        shape = name_of(schedule)
        if shape not in self.shapes:
            raise ValueError(
                f"{key} has the shape {shape or type(schedule).__name__}, sweep.space draws "
                f"{', '.join(self.shapes)}"
            )
        known: dict[str, Any] = {"shape": shape} | numbers_of(schedule)
        if shape == PIECEWISE and known["knots"] not in self.knots:
            raise ValueError(
                f"{key} has {known['knots']} knots, sweep.space draws "
                f"{', '.join(map(str, self.knots))}"
            )
        found: dict[str, Scalar] = {}
        for name, one in self.dimensions(key).items():
            part = name.removeprefix(f"{key}.")
            if part in known:
                found[name] = shape if part == "shape" else one.nearest(known[part])
        made = self.schedule(key, found)
        has, draws = values_of(schedule), values_of(made)
        if unlike := [name for name in has if has[name] != draws[name]]:
            raise ValueError(
                f"{key} has {_shown(has, unlike)}, and the nearest that sweep.space draws has "
                f"{_shown(draws, unlike)}"
            )
        return found

    def _probe(self, shape: str) -> None:
        """Make the schedules of all bounds and of values between: their class may refuse some."""
        names = [name for name in self.parts if name in self._parts_of(shape)]
        for chosen in product(*(_probes(self.parts[name]) for name in names)):
            by_part = dict(zip(names, chosen, strict=True))
            numbers = {
                name: by_part[part] for name, (part, _) in self._numbers.items() if part in by_part
            }
            for knots in self.knots if shape == PIECEWISE else (0,):
                try:
                    make(shape, knots, numbers, self.clock)
                except ValueError as error:
                    shown = ", ".join(f"{name} {number}" for name, number in by_part.items())
                    raise ValueError(f"shape {shape} with {shown}: {error}") from error

    def overrides(self, key: str, values: Mapping[str, Scalar]) -> tuple[str, ...]:
        """The overrides that put the schedule of a point into the place of another one.

        Hydra merges a mapping into the one that is there, so the other one goes first.

        Args:
            key: Where the schedule stands.
            values: Values of its dimensions.

        Returns:
            Two overrides.
        """
        return f"~{key}", f"+{key}={node_of(self.schedule(key, values))}"


def _shown(fields: Mapping[str, Any], names: Iterable[str]) -> str:
    """Some fields of a schedule in words."""
    return ", ".join(f"{name} {fields[name]}" for name in names)


def _probes(part: Part) -> tuple[Any, ...]:
    """Numbers of a part at its bounds and between them, or all of a choice."""
    if not isinstance(part, Dimension):
        return (part,)
    if part.kind is Kind.CHOICE:
        return part.values
    low, high = part.range
    if part.kind.is_whole:
        return tuple(dict.fromkeys((low, high - 1, high)))
    # A share that gives neither a whole number nor a power by chance.
    return (low, low + 0.381966 * (high - low), high)
