"""Points in the plane, drawn from a seed: what all synthetic sets share."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Final, final

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from ...methods.core.rng import Purpose, mix
from .source import AbstractSource, Dataset, Examples, Mixture

_GRID: Final = 2.0**-16
"""Coordinates are multiples of this, so that the last bits of a machine's cosine do not show."""

Points = npt.NDArray[np.float64]
Components = npt.NDArray[np.int64]


def _on_grid(points: Points) -> Float[Tensor, "n 2"]:
    # Downwards, so that a point of a half-open square with edges on the grid stays inside it.
    return torch.from_numpy((np.floor(points / _GRID) * _GRID).astype(np.float32))


@dataclass(frozen=True, kw_only=True)
class AbstractPlanar(AbstractSource):
    """A law in the plane, scaled so that the variance is about 1, as that of the noise N(0, I).

    A law is an even mixture of parts: modes, squares, arms. Training points take their part at
    random. The held-out points have exactly as many of each part, in turn, because counts drawn
    at random would be the largest error of a distance to them; any run of them is balanced too.

    Attributes:
        seed: Seed of the points; held-out points have a stream of their own.
        samples: Number of training points, at least 1.
        held_out: Number of held-out points, a positive multiple of the number of parts.

    Raises:
        ValueError: If a number of points is out of range.
    """

    seed: int = 0
    samples: int = 50_000
    held_out: int = 10_000

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ValueError(f"samples must be at least 1, got {self.samples}")
        if self.held_out < 1 or self.held_out % self.parts:
            raise ValueError(
                f"held_out must be a positive multiple of the {self.parts} parts of {self.name}, "
                f"got {self.held_out}"
            )

    @property
    @abstractmethod
    def parts(self) -> int:
        """Number of equally likely parts of the law."""

    @property
    @abstractmethod
    def mixture(self) -> Mixture | None:
        """The law, where it is a mixture of Gaussians."""

    @abstractmethod
    def draw(self, part: Components, rng: np.random.Generator) -> Points:
        """One point of each of these parts, in the scale of the set.

        Args:
            part: Part of each point, in [0, parts).
            rng: Source of random numbers.
        """

    @property
    @final
    def shape(self) -> tuple[int, ...]:
        """Two coordinates."""
        return (2,)

    @property
    @final
    def label_names(self) -> tuple[str, ...]:
        """None: the sets are unconditional."""
        return ()

    @final
    def load(self) -> Dataset:
        """The points, a pure function of the fields."""
        rng = np.random.default_rng(mix(Purpose.POINTS, self.seed, 0))
        train = self.draw(rng.integers(self.parts, size=self.samples), rng)
        rng = np.random.default_rng(mix(Purpose.POINTS, self.seed, 1))
        held_out = self.draw(np.arange(self.held_out) % self.parts, rng)
        return Dataset.of(
            self,
            train=Examples(x=_on_grid(train)),
            held_out=Examples(x=_on_grid(held_out)),
            mixture=self.mixture,
        )


def check_noise(noise: float, *, name: str) -> None:
    """Refuse a standard deviation that is not positive.

    Args:
        noise: The standard deviation.
        name: Name of its field.

    Raises:
        ValueError: If it is not positive and finite.
    """
    if not 0.0 < noise < float("inf"):
        raise ValueError(f"{name} must be positive and finite, got {noise}")
