"""One dimension of a space: how the values of a key are drawn, and when there are any."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Self, TypeGuard, final

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import BaseTrial

from .condition import Scalar, When, is_met, plain_when, read_when

_FIELDS: Final = frozenset({"kind", "low", "high", "values", "when"})


class Kind(StrEnum):
    """How values of one key are drawn."""

    UNIFORM = "uniform"
    LOG_UNIFORM = "log_uniform"
    INT = "int"
    LOG_INT = "log_int"
    CHOICE = "choice"

    @property
    def is_log(self) -> bool:
        """Whether equal ratios are equally likely, not equal distances."""
        return self in (Kind.LOG_UNIFORM, Kind.LOG_INT)

    @property
    def is_whole(self) -> bool:
        """Whether only whole numbers are drawn."""
        return self in (Kind.INT, Kind.LOG_INT)


@final
@dataclass(frozen=True, kw_only=True)
class Dimension:
    """The values of one swept key.

    Attributes:
        kind: How they are drawn.
        low: Least value; for a choice it stays None.
        high: Greatest value, itself possible; for a choice it stays None.
        values: What is chosen from; for the other kinds it stays empty.
        when: Values of other choices, one or several by key, at which a point has this key; empty
            if every point has it.

    Raises:
        ValueError: If bounds are missing or out of order, there is nothing to choose from, or a
            condition is none.
    """

    kind: Kind
    low: float | None = None
    high: float | None = None
    values: tuple[Scalar, ...] = ()
    when: When = field(default_factory=dict)

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "kind", Kind(self.kind))
        except ValueError:
            raise ValueError(f"kind must be one of {', '.join(Kind)}, got {self.kind!r}") from None
        if not isinstance(self.values, list | tuple):
            raise ValueError(f"a choice needs a list of values, got {self.values!r}")
        object.__setattr__(self, "values", tuple(self.values))
        object.__setattr__(self, "when", read_when(self.when))
        if self.kind is Kind.CHOICE:
            self._check_choice()
        else:
            self._check_bounds()

    def _check_choice(self) -> None:
        if self.low is not None or self.high is not None:
            raise ValueError("a choice has values, not low and high")
        for value in self.values:
            if not isinstance(value, Scalar):
                raise ValueError(f"a choice is between plain values, got {value!r}")
        # Optuna cannot tell 1 from 1.0 or true.
        if len(self.values) < 2 or len(set(self.values)) < len(self.values):
            raise ValueError(
                f"a choice needs at least two different values, got {list(self.values)}"
            )

    def _check_bounds(self) -> None:
        if self.values:
            raise ValueError(f"{self.kind} has low and high, not values")
        if not is_number(self.low) or not is_number(self.high) or not self.low < self.high:
            raise ValueError(
                f"{self.kind} needs numbers low < high, got low {self.low} and high {self.high}"
            )
        if self.kind.is_whole and not all(float(one).is_integer() for one in self._bounds):
            raise ValueError(f"{self.kind} needs whole bounds, got {self.low} and {self.high}")
        if self.kind.is_log and self.low <= 0.0:
            raise ValueError(f"{self.kind} needs low > 0, got {self.low}")

    @classmethod
    def from_dict(cls, node: Mapping[Any, Any]) -> Self:
        """The dimension that plain values describe.

        Args:
            node: The fields by name.

        Returns:
            The dimension.

        Raises:
            ValueError: If a field is unknown or missing, or refused.
        """
        if set(node) - _FIELDS or "kind" not in node:
            raise ValueError(
                "it takes kind, and low and high or values, and perhaps when, "
                f"got {sorted(map(str, node))}"
            )
        return cls(**node)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, from which ``from_dict`` makes an equal dimension."""
        if self.kind is Kind.CHOICE:
            node: dict[str, Any] = {"kind": str(self.kind), "values": list(self.values)}
        else:
            node = {"kind": str(self.kind), "low": self.low, "high": self.high}
        return node | ({"when": plain_when(self.when)} if self.when else {})

    @property
    def _bounds(self) -> tuple[float, float]:
        assert self.low is not None
        assert self.high is not None
        return self.low, self.high

    @property
    def distribution(self) -> BaseDistribution:
        """The same values as Optuna has them."""
        if self.kind is Kind.CHOICE:
            return CategoricalDistribution(self.values)
        low, high = self._bounds
        if self.kind.is_whole:
            return IntDistribution(int(low), int(high), log=self.kind.is_log)
        return FloatDistribution(float(low), float(high), log=self.kind.is_log)

    @property
    def extremes(self) -> tuple[Scalar, ...]:
        """The outermost values, or all of a choice."""
        return self.values if self.kind is Kind.CHOICE else self.range

    @property
    def range(self) -> tuple[float, float]:
        """Least and greatest number.

        Raises:
            ValueError: If it is a choice of which some are no numbers.
        """
        if self.kind is Kind.CHOICE:
            numbers = [value for value in self.values if is_number(value)]
            if len(numbers) < len(self.values):
                raise ValueError(f"it is a choice between {list(self.values)}, not of numbers")
            return min(numbers), max(numbers)
        low, high = self._bounds
        return (int(low), int(high)) if self.kind.is_whole else (float(low), float(high))

    def is_present(self, values: Mapping[str, Scalar]) -> bool:
        """Whether a point has this key.

        Args:
            values: Values of the point, of which those of other choices count.
        """
        return is_met(self.when, values)

    def has(self, value: Scalar) -> bool:
        """Whether a value may be drawn.

        Args:
            value: The value.
        """
        if self.kind is Kind.CHOICE:
            return any(type(one) is type(value) and one == value for one in self.values)
        low, high = self._bounds
        if not is_number(value) or (self.kind.is_whole and not float(value).is_integer()):
            return False
        return low <= value <= high

    def nearest(self, number: float) -> float:
        """The number that may be drawn and is nearest to another one.

        Args:
            number: The other one.

        Returns:
            The number, itself where it may be drawn.

        Raises:
            ValueError: If it is a choice of which some are no numbers.
        """
        low, high = self.range
        if self.kind is Kind.CHOICE:
            numbers = [value for value in self.values if is_number(value)]
            return min(numbers, key=lambda one: abs(one - number))
        near = min(max(number, low), high)
        return round(near) if self.kind.is_whole else near

    def suggest(self, trial: BaseTrial, key: str) -> Scalar:
        """A value that Optuna suggests.

        Args:
            trial: Trial of Optuna.
            key: Name of the parameter.

        Returns:
            The value.
        """
        match self.distribution:
            case IntDistribution() as law:
                return trial.suggest_int(key, law.low, law.high, log=law.log)
            case FloatDistribution() as law:
                return trial.suggest_float(key, law.low, law.high, log=law.log)
            case _:
                chosen: Scalar = trial.suggest_categorical(key, self.values)
                return chosen


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
