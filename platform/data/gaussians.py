"""Mixtures of 8 and of 25 Gaussians, the sets on which every mode can be counted."""

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import final

import numpy as np
import torch

from .planar import AbstractPlanar, Components, Points, check_noise
from .source import Mixture


@dataclass(frozen=True, kw_only=True)
class AbstractGaussians(AbstractPlanar):
    """An even mixture of round Gaussians, divided by the standard deviation of its coordinates.

    Attributes:
        std: Standard deviation of a mode before the division, positive.

    Raises:
        ValueError: If the std is not positive.
    """

    std: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_noise(self.std, name="std")

    @property
    @abstractmethod
    def centres(self) -> Points:
        """Centre of each mode before the division, around the origin."""

    @property
    @final
    def parts(self) -> int:
        """As many as there are modes."""
        return len(self.centres)

    @property
    @final
    def mixture(self) -> Mixture:
        """The law of the set, in its own scale."""
        centres = self.centres
        scale = math.sqrt(np.square(centres).mean() + self.std**2)
        return Mixture(
            means=torch.from_numpy((centres / scale).astype(np.float32)),
            std=self.std / scale,
            weights=torch.full((len(centres),), 1.0 / len(centres)),
        )

    @final
    def draw(self, part: Components, rng: np.random.Generator) -> Points:
        """One point of each of these modes."""
        mixture = self.mixture
        means = mixture.means.numpy().astype(np.float64)
        points: Points = means[part] + mixture.std * rng.standard_normal((len(part), 2))
        return points


@final
@dataclass(frozen=True, kw_only=True)
class EightGaussians(AbstractGaussians):
    """Eight Gaussians on a circle of radius 2, then divided by their standard deviation.

    With the default std of 0.2 the scale is sqrt(2.04): radius 1.400 and std 0.140. Published
    toys have a ratio of std to radius from 0.01 (the GAN literature) through 0.063 (minibatch
    optimal transport) to 0.125 (FFJORD); 0.1 leaves neighbouring modes 7.7 std apart.
    """

    @property
    def name(self) -> str:
        """Name of the set."""
        return "eight_gaussians"

    @property
    def centres(self) -> Points:
        """On the circle, from the right."""
        angle = np.arange(8) * (math.pi / 4)
        return 2.0 * np.stack([np.cos(angle), np.sin(angle)], axis=1)


@final
@dataclass(frozen=True, kw_only=True)
class TwentyFiveGaussians(AbstractGaussians):
    """Gaussians on a 5 x 5 grid of spacing 2, then divided by their standard deviation.

    With the default std of 0.2 the scale is sqrt(8.04): spacing 0.705 and std 0.0705, ten std
    between neighbouring modes. The GAN literature has 0.05, forty std.
    """

    @property
    def name(self) -> str:
        """Name of the set."""
        return "twenty_five_gaussians"

    @property
    def centres(self) -> Points:
        """On the grid, row by row from below."""
        row, column = np.divmod(np.arange(25), 5)
        return 2.0 * np.stack([column - 2.0, row - 2.0], axis=1)
