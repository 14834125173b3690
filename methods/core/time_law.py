"""Laws of one time: how often training visits each time between noise and data."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Final, final

import torch
from jaxtyping import Float
from torch import Tensor

from .rng import Rng

_LARGEST_A: Final = 1400.0
"""Twice the hyperbolic sine of half of it is a number in double precision."""


class AbstractTimeLaw(ABC):
    """A distribution on [0, 1] that knows its own cumulative distribution function."""

    @abstractmethod
    def draw(self, n: int, rng: Rng, *, dtype: torch.dtype) -> Float[Tensor, " n"]:
        """Independent times, shard by shard."""

    @abstractmethod
    def cdf(self, t: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Chance of a time of at most t."""


@final
@dataclass(frozen=True, kw_only=True)
class Uniform(AbstractTimeLaw):
    """All times alike."""

    def draw(self, n: int, rng: Rng, *, dtype: torch.dtype) -> Float[Tensor, " n"]:
        """Independent times, shard by shard."""
        return rng.uniform(n, dtype=dtype)

    def cdf(self, t: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Chance of a time of at most t."""
        return t.clamp(0.0, 1.0)


@final
@dataclass(frozen=True, kw_only=True)
class LogitNormal(AbstractTimeLaw):
    """The logit of the time is normal.

    Reference: Esser et al. 2024, arXiv:2403.03206v1, section 3.1. EDM's log-normal noise level
    (arXiv:2206.00364v2, ln sigma ~ N(m, q)) is LogitNormal(mean=-m, std=q) on our linear path.
    Convention: for a paper whose time runs from data to noise the mean changes sign.

    Attributes:
        mean: Mean of the logit; positive favours the data end.
        std: Standard deviation of the logit, above 0.

    Raises:
        ValueError: If the standard deviation is not positive.
    """

    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.mean) and 0.0 < self.std < math.inf):
            raise ValueError(
                "logit-normal times need a finite mean and a finite std above 0, "
                f"got {self.mean} and {self.std}"
            )

    def draw(self, n: int, rng: Rng, *, dtype: torch.dtype) -> Float[Tensor, " n"]:
        """Independent times, shard by shard."""
        return torch.sigmoid(self.mean + self.std * rng.normal(n, dtype=dtype))

    def cdf(self, t: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Chance of a time of at most t."""
        return torch.special.ndtr((torch.logit(t) - self.mean) / self.std)


@final
@dataclass(frozen=True, kw_only=True)
class UShaped(AbstractTimeLaw):
    """More times at both ends: p(t) = a cosh(a (t - 1/2)) / (2 sinh(a / 2)).

    Reference: Lee, Lin and Fanti 2024, arXiv:2405.20320v1, section 4.1.
    Differs from the paper: the density printed there, exp(a t) + exp(-a t) on [0, 1], only rises.
        This one is symmetric about 1/2, so that the direction of time does not matter.

    Attributes:
        a: How far the mass is drawn to the ends, above 0 and at most 1400; 0 would be uniform.

    Raises:
        ValueError: If a is out of range.
    """

    a: float = 4.0

    def __post_init__(self) -> None:
        if not 0.0 < self.a <= _LARGEST_A:
            raise ValueError(
                f"U-shaped times need an a above 0 and at most {_LARGEST_A:g}, got {self.a}"
            )

    def draw(self, n: int, rng: Rng, *, dtype: torch.dtype) -> Float[Tensor, " n"]:
        """Independent times, shard by shard."""
        centred = 2.0 * rng.uniform(n, dtype=dtype).double() - 1.0  # the sine overflows in single
        t = 0.5 + torch.asinh(centred * math.sinh(self.a / 2)) / self.a
        return t.clamp(0.0, 1.0).to(dtype)

    def cdf(self, t: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Chance of a time of at most t."""
        share = torch.sinh(self.a * (t.double() - 0.5)) / (2.0 * math.sinh(self.a / 2))
        return (0.5 + share).to(t.dtype)
