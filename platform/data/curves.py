"""Noisy curves in the plane: two moons, two spiral arms, a Swiss roll."""

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Final, final

import numpy as np

from .planar import AbstractPlanar, Components, Points, check_noise

_MOON_CENTRE: Final = (0.5, 0.25)
_MOON_SCALE: Final = math.sqrt(0.5 * (0.75 + 0.5 - (2 / math.pi) ** 2 + (2 / math.pi - 0.25) ** 2))
_ROLL_CENTRE: Final = (2.0, 2 / (3 * math.pi))
_ROLL_SCALE: Final = math.sqrt(0.5 * (9.75 * math.pi**2 - 4.0 - (2 / (3 * math.pi)) ** 2))


@dataclass(frozen=True, kw_only=True)
class AbstractCurve(AbstractPlanar):
    """Points of a curve with Gaussian noise across it.

    Attributes:
        noise: Standard deviation across the curve, in the scale of the set, positive.

    Raises:
        ValueError: If the noise is not positive.
    """

    noise: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        check_noise(self.noise, name="noise")

    @abstractmethod
    def trace(self, part: Components, rng: np.random.Generator) -> Points:
        """One point on each of these parts of the curve, before the noise.

        Args:
            part: Part of each point, in [0, parts).
            rng: Source of random numbers.
        """

    @property
    @final
    def mixture(self) -> None:
        """None: the law is no mixture of Gaussians."""
        return None

    @final
    def draw(self, part: Components, rng: np.random.Generator) -> Points:
        """One point of each of these parts."""
        curve = self.trace(part, rng)
        return curve + self.noise * rng.standard_normal(curve.shape)


@final
@dataclass(frozen=True, kw_only=True)
class Moons(AbstractCurve):
    """Two interleaved half circles, the angle uniform along each.

    The half circles have radius 1 and centres (0, 0) and (1, 1/2); the set is centred and divided
    by 0.705, so that the mean variance of its coordinates is 1 before the noise.
    """

    noise: float = 0.07

    @property
    def name(self) -> str:
        """Name of the set."""
        return "moons"

    @property
    def parts(self) -> int:
        """Two moons."""
        return 2

    def trace(self, part: Components, rng: np.random.Generator) -> Points:
        """One point on each of these moons."""
        angle = math.pi * rng.random(len(part))
        sign = 1.0 - 2.0 * part
        curve = np.stack([part + sign * np.cos(angle), 0.5 * part + sign * np.sin(angle)], axis=1)
        return (curve - _MOON_CENTRE) / _MOON_SCALE


@final
@dataclass(frozen=True, kw_only=True)
class Spiral(AbstractCurve):
    """Two arms of an Archimedean spiral, each one and a half turns from the origin to radius 2.

    The radius is 2 sqrt(u) for u uniform in [0, 1], so that the mean variance of the coordinates
    is 1 before the noise and the points are about even along the arms.
    """

    @property
    def name(self) -> str:
        """Name of the set."""
        return "spiral"

    @property
    def parts(self) -> int:
        """Two arms."""
        return 2

    def trace(self, part: Components, rng: np.random.Generator) -> Points:
        """One point on each of these arms."""
        root = np.sqrt(rng.random(len(part)))
        angle = math.pi * (3.0 * root + part)
        return (2.0 * root)[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)


@final
@dataclass(frozen=True, kw_only=True)
class SwissRoll(AbstractCurve):
    """The Swiss roll seen from its end: angle a uniform in [3 pi / 2, 9 pi / 2], radius a.

    The set is centred and divided by 6.79, so that the mean variance of its coordinates is 1
    before the noise; the turns are then 0.93 apart.
    """

    @property
    def name(self) -> str:
        """Name of the set."""
        return "swiss_roll"

    @property
    def parts(self) -> int:
        """One curve."""
        return 1

    def trace(self, part: Components, rng: np.random.Generator) -> Points:
        """One point for each entry."""
        angle = math.pi * (1.5 + 3.0 * rng.random(len(part)))
        curve = angle[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        return (curve - _ROLL_CENTRE) / _ROLL_SCALE
