"""Predictions: what a diffusion network says about a point, as a velocity and back.

At x = (1 - t) x0 + t x1 the best prediction of each kind is one of the same two means, of the noise
and of the data, and their difference is the velocity: each follows from any other.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

from jaxtyping import Float
from torch import Tensor

from .flow_map import Domain
from .shape import rows_like


class AbstractPrediction(ABC):
    """One of the ways to say where a trajectory goes."""

    @abstractmethod
    def velocity(
        self, said: Float[Tensor, " b *d"], x: Float[Tensor, " b *d"], t: Float[Tensor, " b"]
    ) -> Float[Tensor, " b *d"]:
        """Velocity at x and t on the linear path of which the prediction says this."""

    @abstractmethod
    def of(
        self, v: Float[Tensor, " b *d"], x: Float[Tensor, " b *d"], t: Float[Tensor, " b"]
    ) -> Float[Tensor, " b *d"]:
        """The prediction of this velocity at x and t on the linear path."""

    @abstractmethod
    def check(self, domain: Domain) -> None:
        """Refuse times at which the prediction has no velocity.

        Args:
            domain: The times at which it is used.

        Raises:
            ValueError: If the velocity is infinite at one of them.
        """


@final
@dataclass(frozen=True, kw_only=True)
class NoisePrediction(AbstractPrediction):
    """The mean of x0: v = (x - said) / t, finite up to the data but not at pure noise.

    Reference: Ho et al. 2020, arXiv:2006.11239v2, section 3.2.
    """

    def velocity(
        self, said: Float[Tensor, " b *d"], x: Float[Tensor, " b *d"], t: Float[Tensor, " b"]
    ) -> Float[Tensor, " b *d"]:
        """Velocity at x and t on the linear path of which the prediction says this."""
        return (x - said) / rows_like(t, x)

    def of(
        self, v: Float[Tensor, " b *d"], x: Float[Tensor, " b *d"], t: Float[Tensor, " b"]
    ) -> Float[Tensor, " b *d"]:
        """The prediction of this velocity at x and t on the linear path."""
        return x - rows_like(t, x) * v

    def check(self, domain: Domain) -> None:
        """Refuse times at which the prediction has no velocity.

        Args:
            domain: The times at which it is used.

        Raises:
            ValueError: If pure noise is among them.
        """
        if domain.t_lo == 0.0:
            raise ValueError(
                "a predicted noise has no velocity at pure noise: times must begin above t = 0, "
                "got 0"
            )


@final
@dataclass(frozen=True, kw_only=True)
class DataPrediction(AbstractPrediction):
    """The mean of x1: v = (said - x) / (1 - t), finite at pure noise but not at the data."""

    def velocity(
        self, said: Float[Tensor, " b *d"], x: Float[Tensor, " b *d"], t: Float[Tensor, " b"]
    ) -> Float[Tensor, " b *d"]:
        """Velocity at x and t on the linear path of which the prediction says this."""
        return (said - x) / rows_like(1.0 - t, x)

    def of(
        self, v: Float[Tensor, " b *d"], x: Float[Tensor, " b *d"], t: Float[Tensor, " b"]
    ) -> Float[Tensor, " b *d"]:
        """The prediction of this velocity at x and t on the linear path."""
        return x + rows_like(1.0 - t, x) * v

    def check(self, domain: Domain) -> None:
        """Refuse times at which the prediction has no velocity.

        Args:
            domain: The times at which it is used.

        Raises:
            ValueError: If the data are among them.
        """
        if domain.t_hi == 1.0:
            raise ValueError(
                "predicted data have no velocity at the data: times must end below t = 1, got 1"
            )


@final
@dataclass(frozen=True, kw_only=True)
class AngularPrediction(AbstractPrediction):
    """The mean of a x0 - g x1, the derivative of z by its angle: finite at both ends.

        v = (2 t - 1) n^2 x - n said   with n = a + g = 1 / sqrt(t^2 + (1 - t)^2)

    It is what ``Preconditioned`` makes of its network at sigma_data = 1, but for the sign.

    Reference: Salimans and Ho 2022, arXiv:2202.00512v2, section 4, where it is called v.
    """

    def velocity(
        self, said: Float[Tensor, " b *d"], x: Float[Tensor, " b *d"], t: Float[Tensor, " b"]
    ) -> Float[Tensor, " b *d"]:
        """Velocity at x and t on the linear path of which the prediction says this."""
        n = variance_preserving_scale(t)
        return rows_like((2.0 * t - 1.0) * n.square(), x) * x - rows_like(n, x) * said

    def of(
        self, v: Float[Tensor, " b *d"], x: Float[Tensor, " b *d"], t: Float[Tensor, " b"]
    ) -> Float[Tensor, " b *d"]:
        """The prediction of this velocity at x and t on the linear path."""
        n = variance_preserving_scale(t)
        return rows_like((2.0 * t - 1.0) * n, x) * x - v / rows_like(n, x)

    def check(self, domain: Domain) -> None:
        """Every time has a velocity.

        Args:
            domain: The times at which it is used.
        """
        del domain


def variance_preserving_scale(t: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
    """A variance-preserving diffusion's state over that of the linear path, at the same level."""
    return (t.square() + (1.0 - t).square()).rsqrt()
