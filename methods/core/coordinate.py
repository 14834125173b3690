"""Coordinates: the state and clock in which an ODE solver takes its straight steps.

A trajectory is the same curve in all of them. Euler's error and Heun's are not.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

from torch import Tensor


class AbstractCoordinate(ABC):
    """A change of clock and a rescaling of the state, both functions of time alone."""

    @property
    @abstractmethod
    def reaches_noise(self) -> bool:
        """Whether it is finite at t = 0."""

    @abstractmethod
    def clock(self, t: float) -> float:
        """Reading of the solver's clock at time t."""

    @abstractmethod
    def time(self, clock: float) -> float:
        """Time at a reading of the solver's clock."""

    @abstractmethod
    def scale(self, t: float) -> float:
        """Solver's state over the state x, at time t."""

    @abstractmethod
    def slope(self, x: Tensor, t: float, v: Tensor) -> Tensor:
        """Derivative of the solver's state by its clock, where x moves with velocity v."""


@final
@dataclass(frozen=True, kw_only=True)
class TimeCoordinate(AbstractCoordinate):
    """Time itself and the state as it is."""

    @property
    def reaches_noise(self) -> bool:
        """Whether it is finite at t = 0."""
        return True

    def clock(self, t: float) -> float:
        """Reading of the solver's clock at time t."""
        return t

    def time(self, clock: float) -> float:
        """Time at a reading of the solver's clock."""
        return clock

    def scale(self, t: float) -> float:
        """Solver's state over the state x, at time t."""
        del t
        return 1.0

    def slope(self, x: Tensor, t: float, v: Tensor) -> Tensor:
        """Derivative of the solver's state by its clock, where x moves with velocity v."""
        del x, t
        return v


@final
@dataclass(frozen=True, kw_only=True)
class SigmaCoordinate(AbstractCoordinate):
    """EDM's: noise level sigma = (1 - t) / t and state x / t. The linear path only, t > 0.

    Reference: Karras et al. 2022, arXiv:2206.00364v2, Eq. (1), with sigma(t) = t and s(t) = 1.
    """

    @property
    def reaches_noise(self) -> bool:
        """Whether it is finite at t = 0."""
        return False

    def clock(self, t: float) -> float:
        """Reading of the solver's clock at time t."""
        return (1.0 - t) / t

    def time(self, clock: float) -> float:
        """Time at a reading of the solver's clock."""
        return 1.0 / (1.0 + clock)

    def scale(self, t: float) -> float:
        """Solver's state over the state x, at time t."""
        return 1.0 / t

    def slope(self, x: Tensor, t: float, v: Tensor) -> Tensor:
        """Derivative of the solver's state by its clock: the predicted noise x - t v."""
        return x - t * v


@final
@dataclass(frozen=True, kw_only=True)
class AngleCoordinate(AbstractCoordinate):
    """TrigFlow's: angle p with tan p = (1 - t) / (t sigma_data), states of std sigma_data. Linear.

    Reference: Lu and Song 2024, arXiv:2410.11081v1, section 3.1.

    Attributes:
        sigma_data: Standard deviation of the data, above 0.

    Raises:
        ValueError: If sigma_data is not positive.
    """

    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        if not 0.0 < self.sigma_data < math.inf:
            raise ValueError(
                f"angle coordinate needs a finite sigma_data > 0, got {self.sigma_data}"
            )

    @property
    def reaches_noise(self) -> bool:
        """Whether it is finite at t = 0."""
        return True

    def clock(self, t: float) -> float:
        """Reading of the solver's clock at time t."""
        return math.atan2(1.0 - t, t * self.sigma_data)

    def time(self, clock: float) -> float:
        """Time at a reading of the solver's clock."""
        cos, sin = math.cos(clock), math.sin(clock)
        return cos / (cos + self.sigma_data * sin)

    def scale(self, t: float) -> float:
        """Solver's state over the state x, at time t."""
        return self.sigma_data / math.hypot(1.0 - t, self.sigma_data * t)

    def slope(self, x: Tensor, t: float, v: Tensor) -> Tensor:
        """Derivative of the solver's state by its clock, where x moves with velocity v."""
        angle = self.clock(t)
        noise, data = x - t * v, x + (1.0 - t) * v
        return self.sigma_data * math.cos(angle) * noise - math.sin(angle) * data
