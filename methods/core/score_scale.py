"""Scales: how far the difference of two scores moves a generated sample."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

from jaxtyping import Float
from torch import Tensor


class AbstractScoreScale(ABC):
    """How far the generator's samples are asked to move along the difference of the scores."""

    @abstractmethod
    def __call__(
        self, made: Float[Tensor, " b *d"], teacher: Float[Tensor, " b *d"]
    ) -> Float[Tensor, " b"]:
        """Factor of each sample.

        Args:
            made: What the generator made.
            teacher: What the teacher denoises it to.
        """


@final
@dataclass(frozen=True, kw_only=True)
class UnitScale(AbstractScoreScale):
    """No factor: the gradient of E_t (alpha / beta)^2 KL(generated at t, data at t)."""

    def __call__(
        self, made: Float[Tensor, " b *d"], teacher: Float[Tensor, " b *d"]
    ) -> Float[Tensor, " b"]:
        """One for each sample."""
        del teacher
        return made.new_ones(len(made))


@final
@dataclass(frozen=True, kw_only=True)
class DistanceScale(AbstractScoreScale):
    """One over the mean absolute error of the teacher, which evens out the times.

    Reference: Yin et al. 2023 (DMD), arXiv:2311.18828v1, Eq. (8).

    Attributes:
        floor: Least error that is divided by, above 0.

    Raises:
        ValueError: If the floor is not positive.
    """

    floor: float = 1e-4

    def __post_init__(self) -> None:
        if not 0.0 < self.floor < math.inf:
            raise ValueError(f"distance scale needs a finite floor above 0, got {self.floor}")

    def __call__(
        self, made: Float[Tensor, " b *d"], teacher: Float[Tensor, " b *d"]
    ) -> Float[Tensor, " b"]:
        """One over the error of each sample."""
        return 1.0 / (made - teacher).abs().flatten(1).mean(1).clamp(min=self.floor)
