"""Schedules: whatever varies in training, as a pure function of the moment."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain, pairwise, product
from typing import Final, final

from .record import Moment

_LARGEST_POWER: Final = 700.0
"""Of e, in double precision."""


class Clock(StrEnum):
    """What a schedule counts.

    A share of a sweep's rung is no clock of its own. A rung at which curricula are to be compared
    is a complete run, planned on the rung's samples: ``progress`` is the share of it that is done,
    and planning again is what makes it so.
    """

    PROGRESS = "progress"
    """Share of the run done, in [0, 1): the same recipe at any length."""
    SAMPLES = "samples"
    """Samples seen: the same recipe at any batch size."""
    STEP = "step"
    """Optimizer steps taken."""

    def read(self, now: Moment) -> float:
        """The time that this clock shows."""
        match self:
            case Clock.PROGRESS:
                return now.progress
            case Clock.SAMPLES:
                return float(now.samples)
            case Clock.STEP:
                return float(now.step)


@final
@dataclass(frozen=True, kw_only=True)
class Position:
    """Where a schedule stands in one of its moves.

    Attributes:
        clock: What the move counts.
        share: How much of the time that the move takes has passed, in [0, 1].
    """

    clock: Clock
    share: float


class Schedule(ABC):
    """A number that depends on the moment alone. Subclasses are frozen dataclasses."""

    @property
    @abstractmethod
    def clocks(self) -> frozenset[Clock]:
        """What it counts: nothing else of a moment changes its value."""

    @abstractmethod
    def __call__(self, now: Moment) -> float:
        """Value at this moment."""

    @final
    def positions(self, now: Moment) -> tuple[Position, ...]:
        """Where it stands, once for each of its moves; nowhere if its value never changes."""
        return self._positions(now) if len(set(_extremes(self))) > 1 else ()

    @abstractmethod
    def _positions(self, now: Moment) -> tuple[Position, ...]:
        """Where it stands, if its value changes at all."""


@final
@dataclass(frozen=True, kw_only=True)
class Constant(Schedule):
    """The same value at all times."""

    value: float

    @property
    def clocks(self) -> frozenset[Clock]:
        """None."""
        return frozenset()

    def __call__(self, now: Moment) -> float:
        """Value at this moment."""
        del now
        return self.value

    def _positions(self, now: Moment) -> tuple[Position, ...]:
        raise AssertionError("a constant never changes")


@dataclass(frozen=True, kw_only=True)
class _Ramp(Schedule, ABC):
    """A move from one value to another between two readings of a clock, flat outside.

    Attributes:
        start: Value up to ``begin``.
        end: Value from ``until`` on.
        begin: Reading at which the move begins.
        until: Reading at which it ends, above ``begin`` and finite.
        clock: What the readings count.

    Raises:
        ValueError: If the readings are out of order or outside the clock's range.
    """

    start: float
    end: float
    begin: float = 0.0
    until: float = 1.0
    clock: Clock = Clock.PROGRESS

    def __post_init__(self) -> None:
        object.__setattr__(self, "clock", Clock(self.clock))
        if not 0.0 <= self.begin < self.until:
            raise ValueError(
                f"schedule needs 0 <= begin < until, got begin {self.begin} and until {self.until}"
            )
        if math.isinf(self.until):
            raise ValueError(f"schedule has to end: until must be finite, got {self.until}")
        if self.clock is Clock.PROGRESS and self.until > 1.0:
            raise ValueError(f"schedule on the clock progress ends by 1, got until {self.until}")

    @property
    @final
    def clocks(self) -> frozenset[Clock]:
        """Its clock."""
        return frozenset({self.clock})

    def __call__(self, now: Moment) -> float:
        """Value at this moment."""
        return self._between(self._share(now))

    def _positions(self, now: Moment) -> tuple[Position, ...]:
        return (Position(clock=self.clock, share=self._share(now)),)

    def _share(self, now: Moment) -> float:
        share = (self.clock.read(now) - self.begin) / (self.until - self.begin)
        return min(max(share, 0.0), 1.0)

    @abstractmethod
    def _between(self, share: float) -> float:
        """Value when this share of the move is done."""


@final
@dataclass(frozen=True, kw_only=True)
class Linear(_Ramp):
    """A straight line from start to end."""

    def _between(self, share: float) -> float:
        return self.start + share * (self.end - self.start)


@final
@dataclass(frozen=True, kw_only=True)
class Cosine(_Ramp):
    """Half a cosine from start to end, flat at both ends."""

    def _between(self, share: float) -> float:
        return self.end + (self.start - self.end) * 0.5 * (1.0 + math.cos(math.pi * share))


@final
@dataclass(frozen=True, kw_only=True)
class Sigmoid(_Ramp):
    """A logistic curve from start to end; values closer than ``snap`` to either end become it.

    Reference: Zhang et al. 2025 (alpha-Flow), arXiv:2510.20771v1, its curriculum for alpha.
    """

    steepness: float = 25.0
    snap: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (0.0 < self.steepness < math.inf and 0.0 <= self.snap < 0.5):
            raise ValueError(
                "sigmoid schedule needs a finite steepness > 0 and snap in [0, 0.5), "
                f"got {self.steepness} and {self.snap}"
            )

    def _between(self, share: float) -> float:
        power = min(-self.steepness * (share - 0.5), _LARGEST_POWER)
        part = 1.0 / (1.0 + math.exp(power))
        if part < self.snap:
            part = 0.0
        elif part > 1.0 - self.snap:
            part = 1.0
        return self.start + part * (self.end - self.start)


@final
@dataclass(frozen=True, kw_only=True)
class Exponential(_Ramp):
    """A geometric move from start to end, both positive."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.start, self.end) <= 0.0:
            raise ValueError(
                f"exponential schedule needs positive ends, got {self.start} and {self.end}"
            )

    def _between(self, share: float) -> float:
        return self.start * math.pow(self.end / self.start, share)


@final
@dataclass(frozen=True, kw_only=True)
class Doubling(_Ramp):
    """A whole count that doubles at equal intervals from start until it reaches end.

    Each count lasts as long as the others, the last one too: end comes before ``until``.

    Reference: Song and Dhariwal 2023, arXiv:2310.14189v1, section 3.4, whose count is one more.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        is_count = self.start >= 1.0 and float(self.start).is_integer()
        ratio = self.end / self.start if is_count else 0.0
        if ratio < 1.0 or not math.log2(ratio).is_integer():
            raise ValueError(
                "doubling schedule needs a whole start and end = start times a power of two, "
                f"got {self.start} and {self.end}"
            )

    def _between(self, share: float) -> float:
        doublings = round(math.log2(self.end / self.start))
        return float(self.start * 2 ** min(math.floor(share * (doublings + 1)), doublings))


@final
@dataclass(frozen=True, kw_only=True)
class SquareRootGrowth(_Ramp):
    """A whole count whose square grows evenly: ceil(sqrt(a + share (b - a)) - 1).

    Here a = (start + 1)^2 and b = (end + 1)^2, so that it begins at start and ends at end.

    Reference: Song et al. 2023, arXiv:2303.01469v2, appendix C, the number of intervals N(k) - 1;
        their s_0 is start + 1 and their s_1 is end.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        is_whole = float(self.start).is_integer() and float(self.end).is_integer()
        if not (is_whole and 1.0 <= self.start <= self.end):
            raise ValueError(
                "square-root growth needs whole counts 1 <= start <= end, "
                f"got {self.start} and {self.end}"
            )

    def _between(self, share: float) -> float:
        low, high = (self.start + 1.0) ** 2, (self.end + 1.0) ** 2
        # Rounded first: a root that is a whole number must not be lifted to the next.
        return float(math.ceil(round(math.sqrt(low + share * (high - low)) - 1.0, 9)))


@final
@dataclass(frozen=True, kw_only=True)
class MatchedDecay(Schedule):
    """A decay that comes closer to 1 as a grid grows finer: value^(points / (steps + 1)).

    Reference: Song et al. 2023, arXiv:2303.01469v2, appendix C, mu(k).
    Differs from the paper: not at all. Their code divides by the steps, not by the points.

    Attributes:
        value: Decay while the grid has ``points`` points, in (0, 1].
        points: That number, above 0.
        steps: Intervals of the grid, at least 1.

    Raises:
        ValueError: If a value is out of range.
    """

    value: float
    points: float
    steps: Schedule

    def __post_init__(self) -> None:
        if not (0.0 < self.value <= 1.0 and 0.0 < self.points < math.inf):
            raise ValueError(
                "matched decay needs value in (0, 1] and finite points > 0, "
                f"got {self.value} and {self.points}"
            )
        require_range("steps of a matched decay", self.steps, 1.0, math.inf)

    @property
    def clocks(self) -> frozenset[Clock]:
        """Those of the steps."""
        return self.steps.clocks

    def __call__(self, now: Moment) -> float:
        """Value at this moment."""
        return self.at(self.steps(now))

    def _positions(self, now: Moment) -> tuple[Position, ...]:
        return self.steps.positions(now)

    def at(self, steps: float) -> float:
        """Decay on a grid of this many steps."""
        return math.pow(self.value, self.points / (steps + 1.0))


@final
@dataclass(frozen=True, kw_only=True)
class Piecewise(Schedule):
    """Constant values between given readings of a clock.

    Attributes:
        values: One value for each piece.
        boundaries: Readings at which the next piece begins, rising, one fewer than the values;
            each is above 0, and below 1 on the clock progress, so that no piece is empty.
        clock: What the readings count.

    Raises:
        ValueError: If the counts do not fit, or the boundaries do not rise or lie outside the
            clock's range.
    """

    values: tuple[float, ...]
    boundaries: tuple[float, ...]
    clock: Clock = Clock.PROGRESS

    def __post_init__(self) -> None:
        object.__setattr__(self, "clock", Clock(self.clock))
        object.__setattr__(self, "values", tuple(self.values))
        object.__setattr__(self, "boundaries", tuple(self.boundaries))
        rising = all(a < b for a, b in zip(self.boundaries, self.boundaries[1:], strict=False))
        if len(self.values) != len(self.boundaries) + 1 or not rising:
            raise ValueError(
                "piecewise schedule needs rising boundaries, one fewer than values, "
                f"got values {self.values} and boundaries {self.boundaries}"
            )
        end = 1.0 if self.clock is Clock.PROGRESS else math.inf
        if not all(0.0 < boundary < end for boundary in self.boundaries):
            raise ValueError(
                f"piecewise schedule on the clock {self.clock} needs boundaries between 0 and "
                f"{end:g}, got {self.boundaries}"
            )

    @property
    def clocks(self) -> frozenset[Clock]:
        """Its clock."""
        return frozenset({self.clock})

    def __call__(self, now: Moment) -> float:
        """Value at this moment."""
        return self.values[self._passed(now)]

    def _positions(self, now: Moment) -> tuple[Position, ...]:
        # Its move is over where its value changes last.
        turns = [k for k, (a, b) in enumerate(pairwise(self.values), start=1) if a != b]
        share = sum(turn <= self._passed(now) for turn in turns) / len(turns)
        return (Position(clock=self.clock, share=share),)

    def _passed(self, now: Moment) -> int:
        reading = self.clock.read(now)
        return sum(reading >= boundary for boundary in self.boundaries)


@final
@dataclass(frozen=True, kw_only=True)
class Product(Schedule):
    """The product of schedules, such as a warm-up over samples times a decay over the run."""

    factors: tuple[Schedule, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "factors", tuple(self.factors))

    @property
    def clocks(self) -> frozenset[Clock]:
        """Those of all factors, which may differ."""
        return frozenset().union(*(factor.clocks for factor in self.factors))

    def __call__(self, now: Moment) -> float:
        """Value at this moment."""
        return math.prod(factor(now) for factor in self.factors)

    def _positions(self, now: Moment) -> tuple[Position, ...]:
        return tuple(chain.from_iterable(factor.positions(now) for factor in self.factors))


def require_range(name: str, schedule: Schedule, low: float, high: float) -> None:
    """Refuse a schedule that leaves [low, high] anywhere in a run.

    Args:
        name: What the schedule drives, for the message.
        schedule: The schedule.
        low: Least value allowed.
        high: Greatest value allowed.

    Raises:
        ValueError: If a value of the schedule lies outside or is not finite.
    """
    for value in _extremes(schedule):
        if math.isinf(value):
            raise ValueError(f"{name} must be finite, got {value:g}")
        if not low <= value <= high:
            raise ValueError(f"{name} must stay in [{low:g}, {high:g}], got {value:g}")


def greatest(schedule: Schedule) -> float:
    """The greatest value of a schedule in a run."""
    return max(_extremes(schedule))


def least(schedule: Schedule) -> float:
    """The least value of a schedule in a run."""
    return min(_extremes(schedule))


def _extremes(schedule: Schedule) -> tuple[float, ...]:
    match schedule:
        case Constant():
            return (schedule.value,)
        case _Ramp():
            return (float(schedule.start), float(schedule.end))
        case Piecewise():
            return schedule.values
        case MatchedDecay():
            return tuple(schedule.at(steps) for steps in _extremes(schedule.steps))
        case Product():
            # Factors may be negative: the extremes lie at the corners.
            return tuple(math.prod(c) for c in product(*map(_extremes, schedule.factors)))
        case _:
            raise ValueError(f"range of a schedule of class {type(schedule).__name__} is unknown")
