"""Distances: how far a prediction lies from its target, for each sample."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

from jaxtyping import Float
from torch import Tensor

from .shape import sum_rows


class AbstractDistance(ABC):
    """A function of two batches with one number for each row."""

    @abstractmethod
    def __call__(self, x: Float[Tensor, " b *d"], y: Float[Tensor, " b *d"]) -> Float[Tensor, " b"]:
        """Distance of each row of x to the same row of y."""


@final
@dataclass(frozen=True, kw_only=True)
class SquaredL2(AbstractDistance):
    """The sum of squared differences."""

    def __call__(self, x: Float[Tensor, " b *d"], y: Float[Tensor, " b *d"]) -> Float[Tensor, " b"]:
        """Distance of each row of x to the same row of y."""
        return sum_rows((x - y).square())


@final
@dataclass(frozen=True, kw_only=True)
class L1(AbstractDistance):
    """The sum of absolute differences."""

    def __call__(self, x: Float[Tensor, " b *d"], y: Float[Tensor, " b *d"]) -> Float[Tensor, " b"]:
        """Distance of each row of x to the same row of y."""
        return sum_rows((x - y).abs())


@final
@dataclass(frozen=True, kw_only=True)
class PseudoHuber(AbstractDistance):
    """sqrt(|x - y|^2 + c^2) - c with c = scale sqrt(d): squared when near, absolute when far.

    Reference: Song and Dhariwal 2023, arXiv:2310.14189v1, Eq. (7), scale 0.00054.

    Attributes:
        scale: c for one dimension, above 0.

    Raises:
        ValueError: If the scale is not positive.
    """

    scale: float = 0.00054

    def __post_init__(self) -> None:
        if not 0.0 < self.scale < math.inf:
            raise ValueError(
                f"pseudo-Huber distance needs a finite scale above 0, got {self.scale}"
            )

    def __call__(self, x: Float[Tensor, " b *d"], y: Float[Tensor, " b *d"]) -> Float[Tensor, " b"]:
        """Distance of each row of x to the same row of y."""
        c = self.scale * math.sqrt(math.prod(x.shape[1:]))
        return (sum_rows((x - y).square()) + c * c).sqrt() - c
