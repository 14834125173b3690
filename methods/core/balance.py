"""Balances: how the terms of a loss combine into the one number that is differentiated."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import final

from .record import Moment
from .schedule import Schedule, require_range


class AbstractBalance(ABC):
    """Weights of the terms of a loss."""

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

    Reference: Esser et al. 2021, arXiv:2012.09841v3, Eq. (7).

    Attributes:
        at: Name of the parameter, usually the last layer's weight.
        reference: The term that keeps weight 1.
        limit: Largest weight.
        epsilon: Added to the norm that is divided by.
    """

    at: str
    reference: str
    limit: float = 1e4
    epsilon: float = 1e-4

    @property
    def parameter(self) -> str:
        """Name of the parameter whose gradient norms the weights depend on."""
        return self.at

    def weights(
        self, terms: tuple[str, ...], norms: Mapping[str, float], now: Moment
    ) -> Mapping[str, float]:
        """Weight of each term."""
        del now
        if self.reference not in terms:
            raise ValueError(
                f"balance.reference names no term of this method: "
                f"got {self.reference}, allowed {terms}"
            )
        length = norms[self.reference]
        return {
            t: 1.0 if t == self.reference else min(length / (norms[t] + self.epsilon), self.limit)
            for t in terms
        }
