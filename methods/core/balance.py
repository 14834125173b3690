"""Balances: how the terms of a loss combine into the one number that is differentiated."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, final

from .record import Moment
from .schedule import Schedule, require_range

_LIMITS: Final = (0.0, 1e4)
"""Least and largest weight of a term for which none are given."""


class AbstractBalance(ABC):
    """Weights of the terms of a loss."""

    @property
    @abstractmethod
    def terms(self) -> frozenset[str]:
        """Names of the terms that it was told of."""

    @property
    @abstractmethod
    def parameter(self) -> str | None:
        """Name of the parameter whose gradient norms the weights depend on, or None."""

    @abstractmethod
    def weights(
        self, terms: tuple[str, ...], norms: Mapping[str, float], now: Moment
    ) -> Mapping[str, float]:
        """Weight of each term.

        Args:
            terms: Names of the terms.
            norms: Norm of each term's gradient at ``parameter``, over all workers; empty if None.
            now: The moment.

        Returns:
            One weight for each term.
        """


@final
@dataclass(frozen=True, kw_only=True)
class FixedBalance(AbstractBalance):
    """Each term times its schedule, 1 where none is given.

    Attributes:
        schedules: Weight of a term by its name, at least 0.

    Raises:
        ValueError: If a weight is negative, or belongs to no term.
    """

    schedules: Mapping[str, Schedule] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, schedule in self.schedules.items():
            require_range(f"weight of {name}", schedule, 0.0, float("inf"))

    @property
    def terms(self) -> frozenset[str]:
        """Names of the terms that have a schedule."""
        return frozenset(self.schedules)

    @property
    def parameter(self) -> None:
        """Fixed weights depend on no gradient."""
        return None

    def weights(
        self, terms: tuple[str, ...], norms: Mapping[str, float], now: Moment
    ) -> Mapping[str, float]:
        """Weight of each term."""
        del norms
        unknown = sorted(set(self.schedules) - set(terms))
        if unknown:
            raise ValueError(
                f"balance names no term of this method: got {unknown}, allowed {terms}"
            )
        return {t: self.schedules[t](now) if t in self.schedules else 1.0 for t in terms}


@final
@dataclass(frozen=True, kw_only=True)
class GradientRatio(AbstractBalance):
    """Each term scaled until its gradient at one parameter is as long as the reference term's.

    A factor that the method itself gives to a term cancels as long as the weight is within its
    limits; a factor of zero is the exception. What is to stay is a schedule here.

    Reference: Esser et al. 2021, arXiv:2012.09841v3, Eq. (7).

    Attributes:
        at: Name of the parameter, usually the last layer's weight.
        reference: The term that keeps weight 1.
        limits: Least and largest weight of a term by its name; 0 and 1e4 where none are given.
        schedules: Factor of a term's weight by its name, at least 0; 1 where none is given.
        epsilon: Added to the norm that is divided by, at least 0.

    Raises:
        ValueError: If limits are out of order, or a value is negative.
    """

    at: str
    reference: str
    limits: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    schedules: Mapping[str, Schedule] = field(default_factory=dict)
    epsilon: float = 1e-4

    def __post_init__(self) -> None:
        limits = {name: (low, high) for name, (low, high) in self.limits.items()}
        object.__setattr__(self, "limits", limits)
        for name, (low, high) in limits.items():
            if not 0.0 <= low <= high:
                raise ValueError(
                    f"limits of {name} need 0 <= least <= largest, got {low:g} and {high:g}"
                )
        for name, schedule in self.schedules.items():
            require_range(f"weight of {name}", schedule, 0.0, float("inf"))
        if not 0.0 <= self.epsilon < math.inf:
            raise ValueError(
                f"gradient ratio needs a finite epsilon of at least 0, got {self.epsilon}"
            )

    @property
    def terms(self) -> frozenset[str]:
        """Names of the reference and of the terms with limits or a schedule."""
        return frozenset({self.reference, *self.limits, *self.schedules})

    @property
    def parameter(self) -> str:
        """Name of the parameter whose gradient norms the weights depend on."""
        return self.at

    def weights(
        self, terms: tuple[str, ...], norms: Mapping[str, float], now: Moment
    ) -> Mapping[str, float]:
        """Weight of each term."""
        if self.reference not in terms:
            raise ValueError(
                f"balance.reference names no term of this method: "
                f"got {self.reference}, allowed {terms}"
            )
        return {t: self._factor(t, now) * self._ratio(t, norms) for t in terms}

    def _factor(self, term: str, now: Moment) -> float:
        return self.schedules[term](now) if term in self.schedules else 1.0

    def _ratio(self, term: str, norms: Mapping[str, float]) -> float:
        if term == self.reference:
            return 1.0
        low, high = self.limits.get(term, _LIMITS)
        return min(max(norms[self.reference] / (norms[term] + self.epsilon), low), high)


def require_terms(balance: AbstractBalance, terms: tuple[str, ...]) -> None:
    """Refuse a balance that was told of terms that a loss never has.

    Args:
        balance: The balance.
        terms: Every term of the loss.

    Raises:
        ValueError: If there is such a term.
    """
    unknown = sorted(balance.terms - set(terms))
    if unknown:
        raise ValueError(
            f"method.balance must name terms among {', '.join(terms)}, got {', '.join(unknown)}"
        )
