"""Paths: how noise and data are joined at a time between them, and the velocity of the joint."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Final, NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor

from .shape import rows_like

LINEAR: Final = "linear"
"""The name of the linear path, on which most methods are defined."""


class Coefficients(NamedTuple):
    """x = alpha x0 + beta x1 and the derivatives of both coefficients in time."""

    alpha: Tensor
    beta: Tensor
    d_alpha: Tensor
    d_beta: Tensor


class Point(NamedTuple):
    """A point on a path and its velocity there."""

    x: Tensor
    v: Tensor


class AbstractPath(ABC):
    """An interpolant x = alpha(t) x0 + beta(t) x1 from noise (t = 0) to data (t = 1)."""

    @abstractmethod
    def coefficients(self, t: Float[Tensor, "*b"]) -> Coefficients:
        """Coefficients and their derivatives at t in [0, 1]."""

    @property
    @abstractmethod
    def t_hi(self) -> float:
        """Last time at which the velocity is finite, at most 1."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Name and numbers, the same for equal paths alone: a map says by it which one it knows."""

    @final
    def at(
        self, x0: Float[Tensor, " b *d"], x1: Float[Tensor, " b *d"], t: Float[Tensor, " b"]
    ) -> Point:
        """The point between x0 and x1 at time t, and its velocity."""
        c = Coefficients(*(rows_like(part, x0) for part in self.coefficients(t)))
        return Point(x=c.alpha * x0 + c.beta * x1, v=c.d_alpha * x0 + c.d_beta * x1)


@final
@dataclass(frozen=True, kw_only=True)
class LinearPath(AbstractPath):
    """The straight line: alpha = 1 - t, beta = t.

    Reference: Liu et al. 2022, arXiv:2209.03003v1, Eq. (1); Lipman et al. 2022,
        arXiv:2210.02747v2, section 4.1.
    """

    def coefficients(self, t: Float[Tensor, "*b"]) -> Coefficients:
        """Coefficients and their derivatives at t in [0, 1]."""
        one = torch.ones_like(t)
        return Coefficients(alpha=1.0 - t, beta=t, d_alpha=-one, d_beta=one)

    @property
    def t_hi(self) -> float:
        """The velocity is finite everywhere."""
        return 1.0

    @property
    def name(self) -> str:
        """Its kind."""
        return LINEAR


@final
@dataclass(frozen=True, kw_only=True)
class LipmanPath(AbstractPath):
    """The straight line to data with a rest of noise: alpha = 1 - (1 - sigma_min) t, beta = t.

    Reference: Lipman et al. 2022, arXiv:2210.02747v2, section 4.1, example II.

    Attributes:
        sigma_min: Noise that is left at t = 1, in [0, 1); 0 is the linear path.

    Raises:
        ValueError: If it is out of range.
    """

    sigma_min: float = 1e-4

    def __post_init__(self) -> None:
        if not 0.0 <= self.sigma_min < 1.0:
            raise ValueError(f"Lipman path needs sigma_min in [0, 1), got {self.sigma_min}")

    def coefficients(self, t: Float[Tensor, "*b"]) -> Coefficients:
        """Coefficients and their derivatives at t in [0, 1]."""
        one, fall = torch.ones_like(t), 1.0 - self.sigma_min
        return Coefficients(alpha=1.0 - fall * t, beta=t, d_alpha=-fall * one, d_beta=one)

    @property
    def t_hi(self) -> float:
        """The velocity is finite everywhere."""
        return 1.0

    @property
    def name(self) -> str:
        """Without a rest it is the linear path."""
        return LINEAR if self.sigma_min == 0.0 else f"Lipman to {float(self.sigma_min)}"


@final
@dataclass(frozen=True, kw_only=True)
class TrigonometricPath(AbstractPath):
    """The quarter circle: alpha = cos(pi t / 2), beta = sin(pi t / 2).

    Reference: Albergo and Vanden-Eijnden 2022, arXiv:2209.15571v1.
    """

    def coefficients(self, t: Float[Tensor, "*b"]) -> Coefficients:
        """Coefficients and their derivatives at t in [0, 1]."""
        rate = math.pi / 2
        cos, sin = torch.cos(rate * t), torch.sin(rate * t)
        return Coefficients(alpha=cos, beta=sin, d_alpha=-rate * sin, d_beta=rate * cos)

    @property
    def t_hi(self) -> float:
        """The velocity is finite everywhere."""
        return 1.0

    @property
    def name(self) -> str:
        """Its kind."""
        return "trigonometric"


@final
@dataclass(frozen=True, kw_only=True)
class PolynomialPath(AbstractPath):
    """Powers of time: alpha = 1 - t^n, beta = t^n.

    Reference: Lipman et al. 2024 (flow matching guide), arXiv:2412.06264v1, section 4.

    Attributes:
        power: n, at least 1; 1 is the linear path.

    Raises:
        ValueError: If the power is below 1.
    """

    power: float = 2.0

    def __post_init__(self) -> None:
        if not 1.0 <= self.power < math.inf:
            raise ValueError(
                f"polynomial path needs a finite power of at least 1, got {self.power}"
            )

    def coefficients(self, t: Float[Tensor, "*b"]) -> Coefficients:
        """Coefficients and their derivatives at t in [0, 1]."""
        beta, d_beta = t**self.power, self.power * t ** (self.power - 1.0)
        return Coefficients(alpha=1.0 - beta, beta=beta, d_alpha=-d_beta, d_beta=d_beta)

    @property
    def t_hi(self) -> float:
        """The velocity is finite everywhere."""
        return 1.0

    @property
    def name(self) -> str:
        """Power 1 is the linear path."""
        return LINEAR if self.power == 1.0 else f"polynomial of power {float(self.power)}"


@final
@dataclass(frozen=True, kw_only=True)
class LinearVariancePreservingPath(AbstractPath):
    """Data rise linearly and the variance is kept: alpha = sqrt(1 - t^2), beta = t.

    The derivative of alpha is infinite at t = 1; times above ``t_hi`` are read as ``t_hi``, where
    noise of 0.0045 is left.

    Reference: Lipman et al. 2024 (flow matching guide), arXiv:2412.06264v1, section 4.
    """

    def coefficients(self, t: Float[Tensor, "*b"]) -> Coefficients:
        """Coefficients and their derivatives at t in [0, t_hi]."""
        t = t.clamp(max=self.t_hi)
        alpha = torch.sqrt((1.0 - t) * (1.0 + t))
        return Coefficients(alpha=alpha, beta=t, d_alpha=-t / alpha, d_beta=torch.ones_like(t))

    @property
    def t_hi(self) -> float:
        """Last time at which the velocity is finite."""
        return 1.0 - 1e-5

    @property
    def name(self) -> str:
        """Its kind."""
        return "linear variance preserving"


@final
@dataclass(frozen=True, kw_only=True)
class VariancePreservingPath(AbstractPath):
    """The path of the variance-preserving diffusion: beta = exp(-T/2), alpha = sqrt(1 - exp(-T)).

        T = (1 - t)^2 (beta_max - beta_min) / 2 + (1 - t) beta_min

    At t = 0 a share beta = exp(-(beta_min + beta_max) / 4) of the data is still there (0.0066 by
    default), so that its marginal is only nearly the noise. The derivative of alpha is infinite at
    t = 1; times above ``t_hi`` are read as ``t_hi``.

    Reference: Song et al. 2021, arXiv:2011.13456v2, Eq. (32).
    Convention: their time runs from data to noise, t' = 1 - t.

    Attributes:
        beta_min: Rate of noise at the data end, above 0.
        beta_max: Rate of noise at the noise end, above beta_min.

    Raises:
        ValueError: If the rates are out of order.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        if not 0.0 < self.beta_min < self.beta_max < math.inf:
            raise ValueError(
                "variance-preserving path needs finite 0 < beta_min < beta_max, "
                f"got {self.beta_min} and {self.beta_max}"
            )

    def coefficients(self, t: Float[Tensor, "*b"]) -> Coefficients:
        """Coefficients and their derivatives at t in [0, t_hi]."""
        r = 1.0 - t.clamp(max=self.t_hi)
        span = self.beta_max - self.beta_min
        integral = 0.5 * r**2 * span + r * self.beta_min
        rate = -(r * span + self.beta_min)
        beta = torch.exp(-0.5 * integral)
        alpha = torch.sqrt(-torch.expm1(-integral))
        return Coefficients(
            alpha=alpha,
            beta=beta,
            d_alpha=0.5 * rate * beta**2 / alpha,
            d_beta=-0.5 * rate * beta,
        )

    @property
    def t_hi(self) -> float:
        """Last time at which the velocity is finite."""
        return 1.0 - 1e-5

    @property
    def name(self) -> str:
        """Its kind and both rates."""
        return f"variance preserving from {float(self.beta_min)} to {float(self.beta_max)}"
