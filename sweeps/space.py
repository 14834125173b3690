"""The space of a sweep: which overrides are tried, and from which values."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Self, final

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import BaseTrial

Scalar = str | float | int | bool | None
_BARE: Final = re.compile(r"[A-Za-z_][\w.-]*")
_WORDS: Final = frozenset({"true", "false", "null", "none", "nan", "inf"})


class Kind(StrEnum):
    """How values of one key are drawn."""

    UNIFORM = "uniform"
    LOG_UNIFORM = "log_uniform"
    INTEGER = "integer"
    CHOICE = "choice"


@final
@dataclass(frozen=True, kw_only=True)
class Dimension:
    """The values of one swept key.

    Attributes:
        kind: How they are drawn.
        low: Least value; for a choice it stays None.
        high: Greatest value, itself possible; for a choice it stays None.
        values: What is chosen from; for the other kinds it stays empty.

    Raises:
        ValueError: If bounds are missing or out of order, or there is nothing to choose from.
    """

    kind: Kind
    low: float | None = None
    high: float | None = None
    values: tuple[Scalar, ...] = ()

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "kind", Kind(self.kind))
        except ValueError:
            raise ValueError(f"kind must be one of {', '.join(Kind)}, got {self.kind!r}") from None
        if not isinstance(self.values, list | tuple):
            raise ValueError(f"a choice needs a list of values, got {self.values!r}")
        object.__setattr__(self, "values", tuple(self.values))
        if self.kind is Kind.CHOICE:
            self._check_choice()
        else:
            self._check_bounds()

    def _check_choice(self) -> None:
        if self.low is not None or self.high is not None:
            raise ValueError("a choice has values, not low and high")
        if len(self.values) < 2 or len(set(map(repr, self.values))) < len(self.values):
            raise ValueError(
                f"a choice needs at least two different values, got {list(self.values)}"
            )
        for value in self.values:
            if not isinstance(value, str | float | int | bool | None):
                raise ValueError(f"a choice is between plain values, got {value!r}")

    def _check_bounds(self) -> None:
        if self.values:
            raise ValueError(f"{self.kind} has low and high, not values")
        low, high = _number(self.low), _number(self.high)
        if low is None or high is None or not low < high:
            raise ValueError(
                f"{self.kind} needs numbers low < high, got low {self.low} and high {self.high}"
            )
        if self.kind is Kind.LOG_UNIFORM and low <= 0.0:
            raise ValueError(f"log_uniform needs low > 0, got {self.low}")
        if self.kind is Kind.INTEGER and not (low.is_integer() and high.is_integer()):
            raise ValueError(f"integer needs whole bounds, got {self.low} and {self.high}")

    @property
    def distribution(self) -> BaseDistribution:
        """The same values as Optuna has them."""
        if self.kind is Kind.CHOICE:
            return CategoricalDistribution(self.values)
        assert self.low is not None
        assert self.high is not None
        if self.kind is Kind.INTEGER:
            return IntDistribution(int(self.low), int(self.high))
        return FloatDistribution(
            float(self.low), float(self.high), log=self.kind is Kind.LOG_UNIFORM
        )

    def suggest(self, trial: BaseTrial, key: str) -> Scalar:
        """A value, asked of a trial."""
        if self.kind is Kind.CHOICE:
            return trial.suggest_categorical(key, self.values)
        if self.kind is Kind.INTEGER:
            return trial.suggest_int(key, int(self.low or 0), int(self.high or 0))
        is_log = self.kind is Kind.LOG_UNIFORM
        return trial.suggest_float(key, float(self.low or 0), float(self.high or 0), log=is_log)

    @property
    def extremes(self) -> tuple[Scalar, ...]:
        """The outermost values, or all of a choice."""
        if self.kind is Kind.CHOICE:
            return self.values
        if self.kind is Kind.INTEGER:
            return (int(self.low or 0), int(self.high or 0))
        return (float(self.low or 0.0), float(self.high or 0.0))


@final
@dataclass(frozen=True, kw_only=True)
class Space:
    """The swept keys.

    Attributes:
        dimensions: Values by key; a key is the left side of an override.

    Raises:
        ValueError: If there are no keys.
    """

    dimensions: Mapping[str, Dimension]

    def __post_init__(self) -> None:
        if not self.dimensions:
            raise ValueError("sweep.space needs at least one key, got none")

    @classmethod
    def from_dict(cls, values: object) -> Self:
        """The space that plain values describe.

        Args:
            values: ``kind``, and ``low`` and ``high`` or ``values``, by key.

        Returns:
            The space.

        Raises:
            ValueError: If there are no values by key, or a key's values are refused; the message
                names the key.
        """
        if not isinstance(values, Mapping):
            raise ValueError(f"sweep.space must be values by key, got {values!r}")
        dimensions = {}
        for key, node in values.items():
            if not isinstance(node, Mapping):
                raise ValueError(f"sweep.space[{key}] must be a mapping with a kind, got {node!r}")
            if set(node) - {"kind", "low", "high", "values"} or "kind" not in node:
                raise ValueError(
                    f"sweep.space[{key}] takes kind, and low and high or values, "
                    f"got {sorted(map(str, node))}"
                )
            try:
                dimensions[str(key)] = Dimension(**node)
            except ValueError as error:
                raise ValueError(f"sweep.space[{key}]: {error}") from error
        return cls(dimensions=dimensions)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, from which ``from_dict`` makes an equal space."""
        return {
            key: {"kind": str(one.kind), "values": list(one.values)}
            if one.kind is Kind.CHOICE
            else {"kind": str(one.kind), "low": one.low, "high": one.high}
            for key, one in self.dimensions.items()
        }

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        """The space as Optuna has it."""
        return {key: one.distribution for key, one in self.dimensions.items()}

    def suggest(self, trial: BaseTrial) -> dict[str, Scalar]:
        """A point, asked of a trial."""
        return {key: one.suggest(trial, key) for key, one in self.dimensions.items()}

    def overrides(self, values: Mapping[str, Scalar]) -> tuple[str, ...]:
        """The overrides of a point."""
        return tuple(override(key, value) for key, value in values.items())

    def violated(self, values: Mapping[str, Scalar]) -> str | None:
        """Nothing."""
        return None

    @property
    def first(self) -> dict[str, Scalar]:
        """One point of the space: the first extreme of each key."""
        return {key: one.extremes[0] for key, one in self.dimensions.items()}


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
            text = "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
        case str():
            text = value
        case _:
            text = repr(value)
    return f"{key}={text}"


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
