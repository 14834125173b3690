"""Grids: the times at which a sampler stops between noise and data."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import pairwise
from typing import final

from .count import require_whole


class AbstractGrid(ABC):
    """Rising times, from the first to the last time of a map's range."""

    @property
    @abstractmethod
    def steps(self) -> int:
        """How many intervals."""

    @abstractmethod
    def times(self, t_lo: float, t_hi: float) -> tuple[float, ...]:
        """The steps + 1 times between t_lo and t_hi."""


@dataclass(frozen=True, kw_only=True)
class _CountedGrid(AbstractGrid, ABC):
    """A grid of any number of intervals."""

    steps: int = 1

    def __post_init__(self) -> None:
        require_whole("steps of a grid", self.steps)
        if self.steps < 1:
            raise ValueError(f"a grid needs at least 1 step, got {self.steps}")


@final
@dataclass(frozen=True, kw_only=True)
class UniformGrid(_CountedGrid):
    """Equal intervals of time.

    Attributes:
        steps: How many, at least 1.

    Raises:
        ValueError: If there is no step.
    """

    def times(self, t_lo: float, t_hi: float) -> tuple[float, ...]:
        """The steps + 1 times between t_lo and t_hi."""
        inner = (t_lo + (t_hi - t_lo) * k / self.steps for k in range(self.steps))
        return (*inner, t_hi)


@final
@dataclass(frozen=True, kw_only=True)
class HalvedEndGrid(_CountedGrid):
    """Equal intervals and a last one half as long, for the one that has half the evaluations.

    Attributes:
        steps: How many intervals, at least 1.

    Raises:
        ValueError: If there is no step.
    """

    def times(self, t_lo: float, t_hi: float) -> tuple[float, ...]:
        """The times between t_lo and t_hi.

        Args:
            t_lo: First time of the map's range.
            t_hi: Last time of the map's range.

        Returns:
            All times, both ends among them.
        """
        length = (t_hi - t_lo) / (self.steps - 0.5)
        return (*(t_lo + k * length for k in range(self.steps)), t_hi)


@final
@dataclass(frozen=True, kw_only=True)
class KarrasGrid(_CountedGrid):
    """Equal intervals of sigma^(1/rho), with sigma = (1 - t) / t the noise level.

    Reference: Karras et al. 2022, arXiv:2206.00364v2, Eq. (5).

    Attributes:
        steps: How many, at least 1.
        sigma_min: Noise level of the last time, used where the range reaches 1.
        sigma_max: Noise level of the first time, used where the range reaches 0.
        rho: How far the steps crowd towards the data, above 0.

    Raises:
        ValueError: If a value is out of range.
    """

    steps: int = 18
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0

    def __post_init__(self) -> None:
        super().__post_init__()
        is_ordered = 0.0 < self.sigma_min < self.sigma_max < math.inf
        if not (is_ordered and 0.0 < self.rho < math.inf):
            raise ValueError(
                "Karras grid needs finite 0 < sigma_min < sigma_max and rho > 0, got "
                f"{self.sigma_min}, {self.sigma_max} and {self.rho}"
            )

    def times(self, t_lo: float, t_hi: float) -> tuple[float, ...]:
        """The steps + 1 times between t_lo and t_hi."""
        first = (1.0 - t_lo) / t_lo if t_lo > 0.0 else self.sigma_max
        last = (1.0 - t_hi) / t_hi if t_hi < 1.0 else self.sigma_min
        if self.steps == 1:
            return (t_lo, t_hi)
        power = 1.0 / self.rho
        levels = (
            (first**power + k / self.steps * (last**power - first**power)) ** self.rho
            for k in range(1, self.steps)
        )
        return (t_lo, *(1.0 / (1.0 + sigma) for sigma in levels), t_hi)


@final
@dataclass(frozen=True, kw_only=True)
class ListGrid(AbstractGrid):
    """Given times between the two ends.

    Attributes:
        inner: Rising times strictly inside the range; empty for a single step.

    Raises:
        ValueError: If the times do not rise or leave (0, 1).
    """

    inner: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "inner", tuple(self.inner))
        whole = (0.0, *self.inner, 1.0)
        if not all(a < b for a, b in pairwise(whole)):
            raise ValueError(f"grid times must rise strictly inside (0, 1), got {self.inner}")

    @property
    def steps(self) -> int:
        """How many intervals."""
        return len(self.inner) + 1

    def times(self, t_lo: float, t_hi: float) -> tuple[float, ...]:
        """The times between t_lo and t_hi.

        Args:
            t_lo: First time of the map's range.
            t_hi: Last time of the map's range.

        Returns:
            All times, both ends among them.

        Raises:
            ValueError: If a given time lies outside the range.
        """
        if self.inner and not t_lo < self.inner[0] <= self.inner[-1] < t_hi:
            raise ValueError(
                f"grid times must lie inside the map's range ({t_lo:g}, {t_hi:g}), got {self.inner}"
            )
        return (t_lo, *self.inner, t_hi)
