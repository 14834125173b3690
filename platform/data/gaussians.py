"""Mixtures of 8 and of 25 Gaussians, the sets on which every mode can be counted."""

import math
from dataclasses import dataclass
from typing import final

import numpy as np
import torch

from .planar import AbstractPlanar, Components, Points, check_noise
from .source import Mixture


def _mixture(centres: Points, std: float) -> Mixture:
    """An even mixture, divided by the standard deviation of its coordinates."""
    scale = math.sqrt(np.square(centres).mean() + std**2)
    count = len(centres)
    return Mixture(
        means=torch.from_numpy((centres / scale).astype(np.float32)),
        std=std / scale,
        weights=torch.full((count,), 1.0 / count),
    )


def _draw(mixture: Mixture, part: Components, rng: np.random.Generator) -> Points:
    means = mixture.means.numpy().astype(np.float64)
    points: Points = means[part] + mixture.std * rng.standard_normal((len(part), 2))
    return points


@final
@dataclass(frozen=True, kw_only=True)
class EightGaussians(AbstractPlanar):
    """Eight Gaussians on a circle of radius 2, then divided by their standard deviation.

    With the default std of 0.2 the scale is sqrt(2.04): radius 1.400 and std 0.140. Published
    toys have a ratio of std to radius from 0.01 (the GAN literature) through 0.063 (minibatch
    optimal transport) to 0.125 (FFJORD); 0.1 leaves neighbouring modes 7.7 std apart.

    Attributes:
        std: Standard deviation of a mode beside the radius of 2, positive.

    Raises:
        ValueError: If the std is not positive.
    """

    std: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_noise(self.std, name="std")

    @property
    def name(self) -> str:
        """Name of the set."""
        return "eight_gaussians"

    @property
    def parts(self) -> int:
        """Eight modes."""
        return 8

    @property
    def mixture(self) -> Mixture:
        """The law of the set, in its own scale."""
        angle = np.arange(8) * (math.pi / 4)
        return _mixture(2.0 * np.stack([np.cos(angle), np.sin(angle)], axis=1), self.std)

    def draw(self, part: Components, rng: np.random.Generator) -> Points:
        """One point of each of these modes."""
        return _draw(self.mixture, part, rng)


@final
@dataclass(frozen=True, kw_only=True)
class TwentyFiveGaussians(AbstractPlanar):
    """Gaussians on a 5 x 5 grid of spacing 2, then divided by their standard deviation.

    With the default std of 0.2 the scale is sqrt(8.04): spacing 0.705 and std 0.0705, ten std
    between neighbouring modes. The GAN literature has 0.05, forty std.

    Attributes:
        std: Standard deviation of a mode beside the spacing of 2, positive.

    Raises:
        ValueError: If the std is not positive.
    """

    std: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_noise(self.std, name="std")

    @property
    def name(self) -> str:
        """Name of the set."""
        return "twenty_five_gaussians"

    @property
    def parts(self) -> int:
        """Twenty-five modes."""
        return 25

    @property
    def mixture(self) -> Mixture:
        """The law of the set, in its own scale."""
        row, column = np.divmod(np.arange(25), 5)
        return _mixture(2.0 * np.stack([column - 2.0, row - 2.0], axis=1), self.std)

    def draw(self, part: Components, rng: np.random.Generator) -> Points:
        """One point of each of these modes."""
        return _draw(self.mixture, part, rng)
